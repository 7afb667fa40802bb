"""How near approximate products come to float32's gradients on trained weights: classics-28m on GSM8K, on a CPU.

    python bench/gradients.py [--rows 16]

Adapters with random B on every linear layer; one backward pass of the same rows by float32 products of the plain
weights, and by each way of storing and multiplying them, its operands rounded as on a GPU and multiplied in float32.
Of each adapter's gradient the cosine with the plain one's, the least and the mean of each block.
"""

from __future__ import annotations

import argparse
import json
import statistics
from array import array
from dataclasses import replace
from typing import Any

import torch

from measure import SHARED, write_result
from tenfold.cuts import FineTune, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.data import Tokenizer
from tenfold.data.tokenize import Sample
from tenfold.rig.merging import merge_products
from tenfold.rig.model import build_rig
from tenfold.rig.rig import Rig, Source

MODEL = SHARED / "models" / "classics-28m"
B_STD = 0.02
WAYS: dict[str, tuple[Quantize | None, str]] = {
    "plain": (None, "bf16"),
    "fp8 weights": (Quantize("fp8"), "bf16"),
    "fp8 weights and products": (Quantize("fp8"), "fp8"),
    "int8 weights": (Quantize("int8"), "bf16"),
    "nf4 weights": (Quantize("nf4"), "bf16"),
    "nf4 weights, fp8 products": (Quantize("nf4"), "fp8"),
}


def samples(count: int) -> list[Sample]:
    """Questions and answers as text, all of which bears loss."""
    tokenizer = Tokenizer.from_transformers(str(MODEL))
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text().splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    found = []
    for number, row in enumerate(rows):
        ids = tokenizer.encode(f"{row['question']}\n{row['answer']}", add_special_tokens=True)
        found.append(Sample(array("I", ids), bytes([0, *[1] * (len(ids) - 1)]), None, "gsm8k", number))
    return found


def rig_of(quantize: Quantize | None, compute: str) -> Rig:
    """The model with random adapters, merged where products are in fp8."""
    source = Source(str(MODEL))
    rig = build_rig(source, "text", device=torch.device("cpu"), micro_batch_rows=1, pad_id=0, dtype=torch.float32)
    rig = on_rig((*([quantize] if quantize else []), FineTune(), LoRA(rank=16, alpha=32.0), Pack(4096), Fuse()), rig)
    torch.manual_seed(0)
    for name, weight in rig.trainable:
        torch.nn.init.normal_(weight, std=B_STD if "lora_B" in name else weight.shape[1] ** -0.5)
    rig = replace(rig, frozen_compute=compute)
    if compute == "fp8":
        merge_products(rig)
    return rig


def gradients(rig: Rig, rows: list[Sample]) -> dict[str, torch.Tensor]:
    """Of every adapter."""
    rig.model.train()
    batches = rig.layout(rows)
    count = sum(batch.loss_count for batch in batches)
    for batch in batches:
        rig.backward(batch, count)
    return {name: weight.grad.flatten() for name, weight in rig.trainable if weight.grad is not None}


def beside(found: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Cosines of all adapters, summed up, and by block."""
    cosines = {name: float(torch.nn.functional.cosine_similarity(found[name], plain[name], dim=0)) for name in plain}
    blocks: dict[str, list[float]] = {}
    for name, cosine in cosines.items():
        blocks.setdefault(name.split("layers.")[1].split(".")[0], []).append(cosine)
    worst = min(cosines, key=lambda name: cosines[name])
    by_block = {block: {"least": min(some), "mean": statistics.mean(some)} for block, some in blocks.items()}
    return {"least": cosines[worst], "worst": worst, "mean": statistics.mean(cosines.values()), "by_block": by_block}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    arguments = parser.parse_args()
    rows = samples(arguments.rows)
    plain = gradients(rig_of(*WAYS["plain"]), rows)
    results = []
    for name, way in WAYS.items():
        results.append({"way": name, **beside(gradients(rig_of(*way), rows), plain)})
        print(f"{name}: least {results[-1]['least']:.4f} ({results[-1]['worst']}), mean {results[-1]['mean']:.4f}")
    summary = {row["way"]: {"least": row["least"], "mean": row["mean"]} for row in results}
    settings = {"model": "classics-28m", "data": "GSM8K", "rows": arguments.rows, "rank": 16, "b_std": B_STD}
    print(write_result("gradients", settings, results, summary))


if __name__ == "__main__":
    main()
