"""A few steps on real weights, from a recipe to an adapter that loads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tenfold
from tenfold.export.adapter import load_adapter
from tenfold.receipt import Receipt

WORDS = ("red", "blue", "green")


def train(folder: Path, model: Path, task: str, rows: list[dict[str, Any]], steps: int) -> Receipt:
    folder.mkdir(exist_ok=True)
    for name, part in (("train", rows[12:]), ("eval", rows[:12])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    recipe = {
        "model": str(model),
        "task": task,
        "data": {"train": str(folder / "train.jsonl"), "eval": str(folder / "eval.jsonl"), "max_length": 128},
        "machine": "local",
        "cuts": {"lora": {"rank": 4}},
        "train": {
            "max_steps": steps,
            "batch_size": 12,
            "learning_rate": 2e-3,
            "eval_every_steps": steps // 2,
            "dropout": 0.0,
        },
        "output": {"folder": str(folder / "run")},
    }
    return tenfold.train(tenfold.plan(recipe))


def losses(receipt: Receipt) -> list[float]:
    return [point.metrics["loss"] or 0.0 for point in receipt.curve if point.metrics]


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_an_encoder_tells_colours_apart(minilm: Path, tmp_path: Path) -> None:
    rows = [{"text": f"my {word} thing number {n}", "label": word} for n in range(20) for word in WORDS]
    receipt = train(tmp_path, minilm, "classify", rows, 8)
    first, last = losses(receipt)
    assert last < first
    assert next(item.value for item in receipt.quality if item.metric == "accuracy") > 0.6
    rig = load_adapter(tmp_path / "run" / "adapter-last")
    assert rig.labels == tuple(sorted(WORDS))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_a_language_model_learns_to_answer(shared_model: Path, shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "gsm8k" / "train.jsonl").read_text().splitlines()[:72]
    rows = [{"prompt": row["question"], "completion": row["answer"]} for row in map(json.loads, lines)]
    receipt = train(tmp_path, shared_model, "sft", rows, 4)
    first, last = losses(receipt)
    assert last < first
    assert load_adapter(tmp_path / "run" / "adapter-last").model.config.model_type == "llama"
