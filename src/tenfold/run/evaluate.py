"""Loss, perplexity, accuracy and macro-F1 on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tenfold.data.tokenize import Sample, target_bytes
from tenfold.rig.loss import class_logits
from tenfold.rig.precision import autocast
from tenfold.rig.rig import Rig

CHUNK_ROWS = 64
"""Rows handed to the layout at once: enough to pack well; micro-batches stay as small as in training."""


@torch.no_grad()
def evaluate(rig: Rig, samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics over `samples`: classify gives loss, accuracy, macro_f1 and correct; the others loss and perplexity, and
    where the rig has a tokenizer loss_per_byte.

    Uses the training layout and loss, so it holds at most what a training step held.
    """
    training = rig.model.training
    rig.model.eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    found: list[int] = []
    wanted: list[int] = []
    ordered = sorted(samples, key=lambda sample: len(sample.input_ids))
    for start in range(0, len(ordered), CHUNK_ROWS):
        for batch in rig.layout(ordered[start : start + CHUNK_ROWS]):
            placed = batch.to(rig.device)
            with autocast(rig.device, rig.dtype):
                if rig.task == "classify":
                    logits = class_logits(rig.model, placed)
                    total += torch.nn.functional.cross_entropy(logits, placed.targets, reduction="sum").cpu()
                    found += logits.argmax(1).tolist()
                    wanted += batch.targets.tolist()
                else:
                    total += rig.loss(rig.model, placed).cpu()
            count += batch.loss_count
    rig.model.train(training)
    loss = float(total) / max(1, count)
    if rig.task != "classify":
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}  # exp overflows a double above 709
        if rig.tokenizer is not None:
            metrics["loss_per_byte"] = float(total) / max(1, target_bytes(samples, rig.tokenizer))
        return metrics
    correct = sum(f == w for f, w in zip(found, wanted, strict=True))
    return {
        "loss": loss,
        "accuracy": correct / max(1, count),
        "macro_f1": macro_f1(found, wanted),
        "correct": float(correct),
        "rows": float(count),
    }


def macro_f1(found: Sequence[int], wanted: Sequence[int]) -> float:
    """The mean over all labels that occur of F1 = 2 TP / (2 TP + FP + FN)."""
    labels = sorted({*found, *wanted})
    scores: list[float] = []
    for label in labels:
        hits = sum(f == label and w == label for f, w in zip(found, wanted, strict=True))
        either = sum((f == label) + (w == label) for f, w in zip(found, wanted, strict=True))
        scores.append(2 * hits / either)
    return sum(scores) / max(1, len(scores))
