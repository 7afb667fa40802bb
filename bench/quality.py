"""What approximate cuts do to the evaluation loss: classics-28m on GSM8K (sft) and on PubMedQA's abstracts (text).

    python bench/quality.py [--seeds 0 1 2] [--steps 40]

Every leg is a fresh `tenfold train` with the same rows in the same order; legs differ in their cuts or their optimizer
alone, and in the learning rate that the product gives to full fine-tuning and to adapters by default. Each difference
is that of legs of one seed: lora and the optimizers of fewer bits beside full fine-tuning in float32 masters, and each
storage of the frozen weights beside lora on plain ones.
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
EVAL_ROWS = 100
LEGS: dict[str, dict[str, Any]] = {
    "full": {"lora": False},
    "lora": {"lora": True},
    "lora, fp8": {"lora": True, "quantize": "fp8"},
    "lora, int8": {"lora": True, "quantize": "int8"},
    "lora, nf4": {"lora": True, "quantize": "nf4"},
}
ON_A_GPU: dict[str, dict[str, Any]] = {
    f"lora, {storage}, fp8 products": {"lora": True, "quantize": {"storage": storage, "compute": "fp8"}}
    for storage in ("fp8", "nf4")
}
"""Legs of what a CPU cannot do; run where --legs names them."""
OPTIMIZERS = {"full, 8-bit moments": "adamw_8bit", "full, 8-bit moments, split weights": "adamw_8bit_split"}
"""Legs of full fine-tuning with another optimizer than adamw; run where --legs names them."""
ALL_LEGS = LEGS | ON_A_GPU | dict.fromkeys(OPTIMIZERS, LEGS["full"])
BESIDE = {"lora": "full"} | dict.fromkeys(OPTIMIZERS, "full")
BESIDE |= {name: "lora" for name in ALL_LEGS if name.startswith("lora, ")}


def gsm8k(folder: Path) -> tuple[Path, Path]:
    """Prompts and completions."""
    paths = []
    for split, limit in (("train", None), ("test", EVAL_ROWS)):
        rows = [json.loads(line) for line in (SHARED / "data" / "gsm8k" / f"{split}.jsonl").open()][:limit]
        path = folder / f"{split}.jsonl"
        path.write_text(
            "".join(json.dumps({"prompt": row["question"], "completion": row["answer"]}) + "\n" for row in rows)
        )
        paths.append(path)
    return paths[0], paths[1]


def pubmedqa(folder: Path) -> tuple[Path, Path]:
    """The abstracts as text, the last of them held out."""
    rows = list(json.loads((SHARED / "data" / "pubmedqa" / "ori_pqal.json").read_text()).values())
    texts = [json.dumps({"text": "\n".join(row["CONTEXTS"])}) + "\n" for row in rows]
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    train.write_text("".join(texts[:-EVAL_ROWS]))
    test.write_text("".join(texts[-EVAL_ROWS:]))
    return train, test


DATA = {"gsm8k": ("sft", gsm8k), "pubmedqa": ("text", pubmedqa)}


def leg(data: str, name: str, seed: int, steps: int) -> dict[str, Any]:
    """One training, its evaluation loss at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        task, prepare = DATA[data]
        train, test = prepare(folder)
        recipe = {
            "model": str(MODEL),
            "task": task,
            "data": {"train": str(train), "eval": str(test)},
            "machine": {"name": "local", "usd_per_hour": 0.0816},
            "cuts": ALL_LEGS[name],
            "train": {
                "max_steps": steps,
                "batch_size": 8,
                "seed": seed,
                "eval_every_steps": steps,
                "optimizer": OPTIMIZERS.get(name, "adamw"),
            },
            "output": {"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")},
        }
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        receipt = json.loads(fresh(tenfold_command("train", str(path), "--json")))
    loss = next(item["value"] for item in receipt["quality"] if item["metric"] == "loss")
    facts = [f"{cut['name']}: {fact}" for cut in receipt["cuts"] for fact in cut["facts"]]
    return {"data": data, "task": task, "leg": name, "seed": seed, "eval_loss": loss, "cuts": facts}


def differences(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss of each leg less that of the leg that it is set beside, over the seeds."""
    losses = {(row["data"], row["leg"], row["seed"]): row["eval_loss"] for row in rows}
    found: dict[str, Any] = {}
    for data in dict.fromkeys(row["data"] for row in rows):
        for name, beside in BESIDE.items():
            pairs = [
                losses[data, name, seed] - losses[data, beside, seed]
                for seed in sorted({row["seed"] for row in rows})
                if (data, name, seed) in losses and (data, beside, seed) in losses
            ]
            if len(pairs) > 1:
                found[f"{data}: {name} less {beside}"] = interval(pairs)
    return found


def main() -> None:
    """Run all legs, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--legs", nargs="+", choices=ALL_LEGS, default=list(LEGS))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    settings = {"model": "classics-28m", "steps": arguments.steps, "batch_size": 8, "eval_rows": EVAL_ROWS}
    for seed in arguments.seeds:
        for data in arguments.data:
            for name in arguments.legs:
                rows.append(leg(data, name, seed, arguments.steps))
                print(json.dumps({key: value for key, value in rows[-1].items() if key != "cuts"}), flush=True)
    summary = differences(rows)
    print(json.dumps(summary, indent=1))
    write_result("quality", settings, rows, summary)


if __name__ == "__main__":
    main()
