"""Loss, perplexity, accuracy and macro-F1 on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from tenfold.data.tokenize import Sample, target_bytes
from tenfold.rig.attention import attention_kernels
from tenfold.rig.loss import class_logits
from tenfold.rig.out_of_memory import ran_out_of_memory
from tenfold.rig.precision import autocast
from tenfold.rig.rig import Rig
from tenfold.rig.shrinking import shrink

CHUNK_ROWS = 64
"""Rows handed to the layout at once: enough to pack well; micro-batches stay as small as in training."""


class StoppedError(Exception):
    """An evaluation was told to stop before its end."""


def evaluate_in_memory(
    rig: Rig, samples: Sequence[Sample], keep_on: Callable[[], bool], tell: Callable[[str], None]
) -> tuple[Rig, dict[str, float]]:
    """Metrics as `evaluate` gives them, in smaller micro-batches if memory runs out, and the rig that managed.

    Raises as `evaluate` does, and OutOfMemoryError if there is nothing smaller.
    """
    while True:
        try:
            return rig, evaluate(rig, samples, keep_on)
        except RuntimeError as error:
            longest = max(len(sample.input_ids) for sample in samples)
            smaller = shrink(rig, longest) if ran_out_of_memory(error) else None
            if smaller is None or smaller[0].layout == rig.layout:  # recomputing more saves an evaluation nothing
                raise
        rig, change = smaller
        tell(f"out of memory: this evaluation starts again, with {change}")


def evaluate(rig: Rig, samples: Sequence[Sample], keep_on: Callable[[], bool] = lambda: True) -> dict[str, float]:
    """Metrics over `samples`: classify gives loss, accuracy, macro_f1 and correct; the others loss and perplexity, and
    where the rig has a tokenizer loss_per_byte.

    Uses the training layout and loss, so it holds at most what a training step held. `keep_on` is asked before each
    micro-batch; raises StoppedError where it says no. The model is left in the mode it was in.
    """
    training = rig.model.training
    rig.model.eval()
    try:
        return _metrics(rig, samples, keep_on)
    finally:
        rig.model.train(training)


@torch.no_grad()
def _metrics(rig: Rig, samples: Sequence[Sample], keep_on: Callable[[], bool]) -> dict[str, float]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    found: list[int] = []
    wanted: list[int] = []
    ordered = sorted(samples, key=lambda sample: len(sample.input_ids))
    for start in range(0, len(ordered), CHUNK_ROWS):
        for batch in rig.layout(ordered[start : start + CHUNK_ROWS]):
            if not keep_on():
                raise StoppedError
            placed = batch.to(rig.device)
            with autocast(rig.device, rig.dtype), attention_kernels(placed):
                if rig.task == "classify":
                    logits = class_logits(rig.model, placed)
                    total += torch.nn.functional.cross_entropy(logits, placed.targets, reduction="sum").cpu()
                    found += logits.argmax(1).tolist()
                    wanted += batch.targets.tolist()
                else:
                    total += rig.loss(rig.model, placed).cpu()
            count += batch.loss_count
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
