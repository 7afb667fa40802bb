"""What fp8 products do to the evaluation loss, multiplied the long way on a CPU: operands rounded as on a GPU.

    python bench/quality_products.py [--seeds 0 1 2] [--steps 20]

classics-28m on GSM8K (sft) and PubMedQA's abstracts (text). A plan refuses fp8 products on a CPU, which has no units
for them; here the engine's own loop trains a rig that has them. Legs have the same rows in the same order, and float32
wherever nothing is rounded; each difference is that of legs of one seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from measure import interval, write_result
from quality import DATA, EVAL_ROWS, MODEL
from tenfold.api import read_dataset
from tenfold.cuts import FineTune, LoRA, Pack, Quantize, on_rig
from tenfold.recipe import recipe_from_dict
from tenfold.rig.chunked_loss import chunk_loss
from tenfold.rig.merging import merge_products
from tenfold.rig.model import build_rig
from tenfold.rig.rig import Rig, Source, Task
from tenfold.run.evaluate import evaluate
from tenfold.run.loop import train_steps
from tenfold.run.optimizer import make_optimizer
from tenfold.run.schedule import make_schedule
from tenfold.run.train import learning_rate
from tenfold.shape import read_shape

PLAIN = "lora"
LEGS: dict[str, Quantize | None] = {
    PLAIN: None,
    "lora, fp8, fp8 products": Quantize("fp8"),
    "lora, nf4, fp8 products": Quantize("nf4"),
}


def rig_of(storage: Quantize | None, task: Task, seed: int) -> Rig:
    """The model with fresh adapters; with products in fp8 where its weights are stored in few bits."""
    torch.manual_seed(seed)
    rig = build_rig(Source(str(MODEL)), task, micro_batch_rows=8, pad_id=0, dtype=torch.float32)
    rig = on_rig((FineTune(), *([storage] if storage else []), LoRA(rank=16, alpha=32.0), Pack(2048)), rig)
    rig = chunk_loss(rig, 2048, narrow=False)  # merged products take all rows of the last block, as compiled layers do
    if storage:
        rig = replace(rig, frozen_compute="fp8")
        merge_products(rig)
    return rig


def leg(data: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """One training, its evaluation loss before and after it."""
    task, prepare = DATA[data]
    with tempfile.TemporaryDirectory() as folder:
        train, test = prepare(Path(folder))
        wishes = recipe_from_dict(
            {
                "model": str(MODEL),
                "task": task,
                "data": {"train": str(train), "eval": str(test)},
                "train": {"max_steps": steps, "batch_size": 8, "seed": seed},
            }
        )
        dataset, _ = read_dataset(wishes, read_shape(str(MODEL)))
    rig = rig_of(LEGS[name], task, seed)
    before = evaluate(rig, dataset.evaluation)["loss"]
    losses: list[float] = []
    train_steps(
        rig,
        dataset.train,
        make_schedule(wishes.train, len(dataset.train), learning_rate(wishes, lora=True)),
        make_optimizer(rig, wishes.train),
        first_step=0,
        max_gradient_norm=1.0,
        admit=lambda *step: True,
        after_step=lambda report: losses.append(report.loss) is None,
        tell=print,
    )
    after = evaluate(rig, dataset.evaluation)["loss"]
    row = {"data": data, "leg": name, "seed": seed, "eval_loss_before": before, "eval_loss": after}
    return {**row, "train_losses": losses}


def main() -> None:
    """Run all legs, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for data in DATA:
            for name in LEGS:
                rows.append(leg(data, name, seed, arguments.steps))
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "train_losses"}), flush=True)
    losses = {(row["data"], row["leg"], row["seed"]): row["eval_loss"] for row in rows}
    summary = {
        f"{data}: {name} less {PLAIN}": interval(
            [losses[data, name, seed] - losses[data, PLAIN, seed] for seed in arguments.seeds]
        )
        for data in DATA
        for name in LEGS
        if name != PLAIN
    }
    print(json.dumps(summary, indent=1))
    settings = {"model": "classics-28m", "steps": arguments.steps, "batch_size": 8, "eval_rows": EVAL_ROWS}
    print(write_result("quality_products", settings, rows, summary))


if __name__ == "__main__":
    main()
