"""The same rows laid out in other ways must give the same loss and gradients: on the model and the rows of the run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite

import torch

from tenfold.data import Sample
from tenfold.receipt import Finding
from tenfold.rig.backward import eager_backward
from tenfold.rig.batch import Batch
from tenfold.rig.probe import TOLERANCE
from tenfold.rig.rig import Rig

ROWS = 4
AMONG = 64
"""The shortest rows of so many: enough to differ in length, few enough to cost a second on any model."""

TOKENS = 256
"""Of each row: what is longer shows no more, and is run here as no plan counts the memory of, layers as written."""

MOST_COMPARED = 2**24
"""Numbers of the gradient that are held for comparison, the smallest tensors first: 64 MiB."""

PLAINLY_WRONG = 10.0
"""Times the tolerance. Rounding in bfloat16 depends on the layout, and may pass the tolerance on a few short rows."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step would have been made of."""

    loss: float
    gradients: tuple[torch.Tensor, ...]


def few_rows(samples: Sequence[Sample]) -> list[Sample]:
    """Some of the shortest of the first rows, of different lengths where there are such; of long ones a piece."""
    ordered = sorted(samples[:AMONG], key=lambda sample: len(sample.input_ids))
    by_length = {len(sample.input_ids): sample for sample in reversed(ordered)}
    others = [sample for sample in ordered if by_length[len(sample.input_ids)] is not sample]
    chosen = [*sorted(by_length.values(), key=lambda sample: len(sample.input_ids))[:ROWS], *others][:ROWS]
    return [piece_of(sample) for sample in chosen]


def piece_of(sample: Sample) -> Sample:
    """At most TOKENS tokens of a row, the last of them the last that bears loss; of a row with a label the first."""
    if len(sample.input_ids) <= TOKENS:
        return sample
    if sample.loss_mask is None:
        return replace(sample, input_ids=sample.input_ids[:TOKENS])
    end = max(TOKENS, sample.loss_mask.rfind(1) + 1)
    mask = bytes(1) + sample.loss_mask[end - TOKENS + 1 : end]  # the first token has none before it to be told from
    return replace(sample, input_ids=sample.input_ids[end - TOKENS : end], loss_mask=mask)


@dataclass(frozen=True)
class Trial:
    """A few rows of a run on its rig."""

    rig: Rig
    rows: Sequence[Sample]

    @cached_property
    def together(self) -> Step:
        """One optimizer step of all rows, laid out as in training: what other ways must equal."""
        return step_of(self.rig, self.rig.layout(self.rows))


def packing(trial: Trial) -> Finding:
    """Rows in one micro-batch, packed or padded, against each of them alone in its own."""
    rig, rows = trial.rig, trial.rows
    together, apart = trial.together, step_of(rig, [batch for row in rows for batch in rig.layout([row])])
    return _compared("packing", f"{len(rows)} rows together and each alone", rig, together, apart)


def accumulation(trial: Trial) -> Finding:
    """One optimizer step in one piece against the same rows in two unequal ones."""
    rig, rows = trial.rig, trial.rows
    pieces = step_of(rig, [*rig.layout(rows[:1]), *(rig.layout(rows[1:]) if len(rows) > 1 else [])])
    return _compared("accumulation", f"{len(rows)} rows of one step cut in two ways", rig, trial.together, pieces)


def step_of(rig: Rig, batches: Sequence[Batch]) -> Step:
    """Loss and gradients of these micro-batches, without dropout; the rig is left without gradients.

    Layers run as they are written, not compiled or recorded, and attention by kernels that plan nothing: that would be
    for other shapes than training's.
    """
    training = rig.model.training
    rig.model.eval()
    loss_tokens = sum(batch.loss_count for batch in batches)
    plain = replace(rig, backpropagate=eager_backward)
    try:
        with _not_compiled():
            total = sum(plain.backward(replace(b, one_length=False), loss_tokens).item() for b in batches)
        gradients, held = list[torch.Tensor](), 0
        for weight in sorted((weight for _, weight in rig.trainable), key=torch.Tensor.numel):
            held += weight.numel()
            if held <= MOST_COMPARED or not gradients:
                gradients.append(torch.zeros_like(weight) if weight.grad is None else weight.grad.clone())
    finally:
        rig.model.zero_grad(set_to_none=True)
        rig.model.train(training)
    return Step(total / max(1, loss_tokens), tuple(gradients))


def _not_compiled() -> AbstractContextManager[object]:
    """Nothing to undo where torch's compiler was never imported, which would cost 50 MiB."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _compared(check: str, what: str, rig: Rig, one: Step, other: Step) -> Finding:
    if not (isfinite(one.loss) and isfinite(other.loss)):
        text = f"the loss of {what} is {one.loss} and {other.loss} before the first step; look at the model's weights"
        return Finding(check=check, verdict="refusal", text=text)
    difference = max(abs(one.loss - other.loss) / max(abs(one.loss), 1e-12), _relative(one.gradients, other.gradients))
    text = f"{what}: loss {one.loss:.5g} and {other.loss:.5g}, gradients within {difference:.1e}"
    tolerance = TOLERANCE[rig.dtype]
    if difference <= tolerance:
        return Finding(check=check, verdict="ok", text=text)
    # Not `>`: a difference that is not a number is no rounding.
    if rig.dtype != torch.float32 and difference <= PLAINLY_WRONG * tolerance:
        return Finding(check=check, verdict="warning", text=f"{text}, where rounding explains {tolerance:.0e}")
    return Finding(check=check, verdict="refusal", text=f"{text}; set cuts.pack: false and cuts.fuse: false")


def _relative(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    squares = [(float((a - b).square().sum()), float(a.square().sum())) for a, b in zip(expected, found, strict=True)]
    wrong, whole = (sum(column) for column in zip(*squares, strict=True))
    return (wrong / max(whole, 1e-30)) ** 0.5
