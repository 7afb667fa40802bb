"""Useful tokens per second and evaluation loss: classics-28m on GSM8K, ours beside TRL's SFTTrainer with PEFT.

    python bench/sft.py [--seeds 3] [--steps 60]

Both see the same rows of 8 per optimizer step for the same number of steps, each in a fresh process, alternating.
Tokens are useful ones: padding is not counted. The losses are measured by the same code on the same held-out rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from measure import SHARED, fresh, interval, tenfold_command, write_result

MODEL = SHARED / "models" / "classics-28m"
EVAL_ROWS = 200


def prepare(folder: Path) -> tuple[Path, Path]:
    """GSM8K as prompt and completion."""
    paths = []
    for split, limit in (("train", None), ("test", EVAL_ROWS)):
        path = folder / f"{split}.jsonl"
        with (SHARED / "data" / "gsm8k" / f"{split}.jsonl").open() as source, path.open("w") as target:
            for row in [json.loads(line) for line in source][:limit]:
                target.write(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n")
        paths.append(path)
    return paths[0], paths[1]


def recipe_of(seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """What our side trains, with all that the planner chooses left to it."""
    train, test = prepare(folder)
    return {
        "model": str(MODEL),
        "task": "sft",
        "data": {"train": str(train), "eval": str(test)},
        "machine": {"name": "local", "usd_per_hour": 0.0816},
        "cuts": {"lora": True},
        "train": {"max_steps": steps, "batch_size": 8, "seed": seed, "eval_every_steps": steps},
        "output": {"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")},
    }


def leg(seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Ours, then the peer beside it, for one seed."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(seed, steps, folder)))
    fresh(tenfold_command("train", str(path), "--json"))
    receipt = json.loads(
        fresh(tenfold_command("prove", str(folder / "run" / "receipt.json"), "--baseline", "peer", "--json"))
    )
    return {"seed": seed, **summarise(receipt)}


def summarise(receipt: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one leg."""
    peer = next(baseline for baseline in receipt["baselines"] if baseline["kind"] == "peer")
    measured = {row["name"]: row["measured"] for row in receipt["measurements"]}
    ours = measured["tokens"] / measured["train_seconds"]
    theirs = peer["tokens"] / peer["train_seconds"]
    return {
        "our_tokens_per_second": ours,
        "peer_tokens_per_second": theirs,
        "speedup": ours / theirs,
        "our_tokens": measured["tokens"],
        "peer_tokens": peer["tokens"],
        "our_eval_loss": next(item["value"] for item in receipt["quality"] if item["metric"] == "loss"),
        "peer_eval_loss": next(item["value"] for item in peer["quality"] if item["metric"] == "loss"),
        "our_memory_above_idle_bytes": measured["peak_memory_bytes"] - measured["idle_memory_bytes"],
        "peer_memory_above_idle_bytes": peer["peak_memory_bytes"] - peer["idle_memory_bytes"],
        "peer_note": peer["note"],
        "cuts": [cut["name"] for cut in receipt["cuts"]],
    }


def main() -> None:
    """Run all legs, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(leg(seed, arguments.steps, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    keys = ("speedup", "our_tokens_per_second", "peer_tokens_per_second", "our_eval_loss", "peer_eval_loss")
    summary = {key: interval([row[key] for row in rows]) for key in keys}
    print(json.dumps(summary, indent=1))
    write_result(
        "sft", {"model": "classics-28m", "data": "GSM8K", "steps": arguments.steps, "batch_size": 8}, rows, summary
    )


if __name__ == "__main__":
    main()
