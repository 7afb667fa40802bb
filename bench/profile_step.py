"""Where the time of a training step goes, and the memory of a run: a benchmark's own recipe for a few steps.

    python bench/profile_step.py sft|banking77|tickets [--steps 20] [--skip 4] [--set train.dtype=float32] [--plain]

Runs in this process, under torch.profiler unless --plain, which measures tokens/s and memory instead. The first
`--skip` steps are not counted. Prints CPU time by operator and the share of matrix products and attention.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import classify
import sft
from measure import interval, write_result
from tenfold import api
from tenfold.receipt import Receipt
from tenfold.recipe import Recipe
from tenfold.recipe.load import load_recipe
from tenfold.run.events import Event

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"}
"""Operators that are matrix products and nothing else."""

ATTENTION = "scaled_dot_product"
"""Part of the names of fused attention."""


class Watch:
    """Profiles the steps after the first few, and keeps the speed of each."""

    def __init__(self, skip: int, steps: int, plain: bool, shapes: bool) -> None:
        import torch

        self.skip, self.steps, self.shapes = skip, steps, shapes
        kinds = [torch.profiler.ProfilerActivity.CPU]
        self.profiler = None if plain else torch.profiler.profile(activities=kinds, record_shapes=shapes)
        self.speeds: list[float] = []
        """Useful tokens per second of each step after the skipped ones."""

    def __call__(self, event: Event) -> None:
        """One event of the run; the recipe logs every step."""
        if event.kind != "step":
            return
        step, speed = (float(event.values[key] or 0) for key in ("step", "tokens_per_second"))
        if step > self.skip:
            self.speeds.append(speed)
        if self.profiler is not None and step == self.skip:
            self.profiler.start()
        if self.profiler is not None and step == self.steps:
            self.profiler.stop()

    def operators(self) -> list[dict[str, Any]]:
        """Self CPU seconds by operator, most first."""
        assert self.profiler is not None
        rows = [
            {
                "name": f"{row.key} {row.input_shapes}" if self.shapes else row.key,
                "seconds": row.self_cpu_time_total / 1e6,
                "calls": row.count,
            }
            for row in self.profiler.key_averages(group_by_input_shape=self.shapes)
        ]
        return sorted(rows, key=lambda row: -row["seconds"])


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, and say what was seen."""
    plan = api.plan(recipe_of(arguments, folder))
    watch = Watch(arguments.skip, arguments.steps, arguments.plain, arguments.shapes)
    receipt = api.train(plan, [watch])
    row: dict[str, Any] = {
        "benchmark": arguments.benchmark,
        "overrides": arguments.overrides,
        "micro_batch_tokens": [cut.get("tokens") for cut in plan.cuts if "tokens" in cut],
        "median_tokens_per_second": statistics.median(watch.speeds),
        "tokens_per_second": interval(watch.speeds),
        "memory_above_idle_mib": memory_mib(receipt),
        "quality": {item.metric: item.value for item in receipt.quality},
    }
    if not arguments.plain:
        operators = watch.operators()
        total = sum(item["seconds"] for item in operators)
        products = [item["seconds"] for item in operators if item["name"].split()[0] in PRODUCTS]
        row["share_products"] = sum(products) / total
        row["share_attention"] = sum(item["seconds"] for item in operators if ATTENTION in item["name"]) / total
        row["operators"] = operators[: arguments.top]
        for item in row["operators"]:
            print(f"{item['seconds'] / total:6.1%} {item['seconds']:8.3f} s {item['calls']:7d} {item['name']}")
    return row


def memory_mib(receipt: Receipt) -> float:
    """Peak resident memory above what the libraries alone hold."""
    measured = {item.name: item.measured or 0.0 for item in receipt.measurements}
    return (measured["peak_memory_bytes"] - measured["idle_memory_bytes"]) / 2**20


def recipe_of(arguments: argparse.Namespace, folder: Path) -> Recipe:
    """The benchmark's recipe, for so many steps."""
    import yaml

    if arguments.benchmark == "sft":
        wishes = sft.recipe_of(arguments.seed, arguments.steps, folder)
    else:
        model = arguments.model or classify.packaged_model()
        wishes = classify.recipe_of(arguments.benchmark, arguments.seed, folder, model, classify.BANKING77)
        wishes["train"].pop("epochs", None)
        wishes["train"] |= {"max_steps": arguments.steps, "eval_every_steps": arguments.steps}
    wishes["train"]["log_every_steps"] = 1
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(wishes))
    return load_recipe(path, arguments.overrides)


def main() -> None:
    """Run, print, write the result if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", choices=("sft", "banking77", "tickets"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--skip", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="key=value of the recipe")
    parser.add_argument("--plain", action="store_true", help="no profiler: tokens/s and memory as in a real run")
    parser.add_argument("--shapes", action="store_true", help="one line for each shape of an operator's inputs")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--model", type=Path, help="folder of all-MiniLM-L6-v2; default: the package's")
    parser.add_argument("--write", metavar="NAME", help="keep the row as bench/results/NAME_...json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = run(arguments, Path(folder))
    print(json.dumps({key: value for key, value in row.items() if key != "operators"}, indent=1))
    if arguments.write:
        write_result(arguments.write, {"steps": arguments.steps, "skip": arguments.skip}, [row], {})


if __name__ == "__main__":
    main()
