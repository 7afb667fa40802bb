"""Small real recipes on tiny models, for tests that run the whole way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tiny import DECODERS, tiny_folder

WORDS = [f"w{number}" for number in range(100)]


def write_rows(path: Path, task: str, rows: int = 40, seed: int = 0) -> Path:
    """JSONL rows of mixed length; a label follows from the first word, so that it can be learned."""
    draw = random.Random(seed)
    lines: list[dict[str, Any]] = []
    for _ in range(rows):
        words = draw.choices(WORDS, k=draw.randint(3, 20))
        if task == "classify":
            lines.append({"text": " ".join(words), "label": f"label{int(words[0][1:]) % 3}"})
        elif task == "sft":
            lines.append({"prompt": " ".join(words), "completion": " ".join(words[:3])})
        else:
            lines.append({"text": " ".join(words)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_recipe(folder: Path, task: str = "sft", family: str = "llama", **sections: dict[str, Any]) -> dict[str, Any]:
    """A recipe with its data and model in `folder`; `sections` are merged into it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"base-{family}"
    if not model.is_dir():
        tiny_folder(model, family)
    assert task == "classify" or family in DECODERS
    recipe: dict[str, Any] = {
        "model": str(model),
        "task": task,
        "data": {
            "train": str(write_rows(folder / "train.jsonl", task)),
            "eval": str(write_rows(folder / "eval.jsonl", task, 12, 1)),
        },
        "machine": {"name": "local", "usd_per_hour": 1.0},
        "cuts": {"lora": {"rank": 4}},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "output": {"folder": str(folder / "run")},
    }
    for name, values in sections.items():
        merged = {**recipe.get(name, {}), **values}
        recipe[name] = {key: value for key, value in merged.items() if value is not None}
    return recipe


@contextmanager
def stepping(folder: Path, recipe: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """`tenfold train` in a process of its own, which has made its first logged step; its progress goes to stderr."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "tenfold", "train", str(folder / "recipe.yaml"), "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and json.loads(line)["event"] == "step":
                break
        yield process
