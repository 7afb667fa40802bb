"""The loop. It names no cut: what the cuts changed is in the rig."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from tenfold.data.tokenize import Sample
from tenfold.errors import NotFinite
from tenfold.rig.batch import Batch
from tenfold.rig.rig import Rig
from tenfold.rig.shrinking import recover
from tenfold.run.optimizer import set_rates
from tenfold.run.schedule import Schedule


@dataclass(frozen=True)
class StepReport:
    """One optimizer step, as it was measured."""

    step: int
    """Steps done, this one included."""
    loss: float
    """Mean over the targets that bear loss."""
    gradient_norm: float
    learning_rate: float
    rows: int
    tokens: int
    """Tokens that are not padding."""
    loss_tokens: int
    seconds: float
    rig: Rig
    """As it did the step: with smaller micro-batches once memory has run out."""


def train_steps(
    rig: Rig,
    samples: Sequence[Sample],
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    *,
    first_step: int,
    max_gradient_norm: float | None,
    admit: Callable[[int, float, Sequence[Sample]], bool],
    after_step: Callable[[StepReport], bool],
    tell: Callable[[str], None],
) -> None:
    """Train from `first_step` (0, or where a checkpoint stopped) to the schedule's end.

    `admit` sees each step's number, loss and rows before its update, and may return False to leave the update out;
    `after_step` sees its report and may evaluate, save, or return False to stop; `tell` hears of smaller micro-batches
    after a lack of memory. Raises NotFinite before an update that a NaN or Inf would poison.
    """
    weights = [weight for _, weight in rig.trainable]
    rig.model.train()
    rows, batches = _lay_out(rig, samples, schedule, first_step)
    for step in range(first_step, schedule.total_steps):
        started = time.perf_counter()
        rig, batches, loss_sum = accumulate(rig, rows, batches, tell)
        loss_tokens = sum(batch.loss_count for batch in batches)

        set_rates(optimizer, schedule, step)
        norm = torch.nn.utils.clip_grad_norm_(weights, max_gradient_norm or math.inf)
        both = torch.stack([loss_sum / loss_tokens, norm.float()])
        # Until here a GPU only has its work: the next rows are laid out while it computes, then the host waits for it.
        following = _lay_out(rig, samples, schedule, step + 1)
        mean_loss, gradient_norm = both.tolist()
        if not (math.isfinite(mean_loss) and math.isfinite(gradient_norm)):
            raise NotFinite(_not_finite(step, mean_loss, gradient_norm, rows))

        if admit(step + 1, mean_loss, rows):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        report = StepReport(
            step=step + 1,
            loss=mean_loss,
            gradient_norm=gradient_norm,
            learning_rate=schedule.learning_rate_at(step),
            rows=len(rows),
            tokens=sum(batch.tokens for batch in batches),
            loss_tokens=loss_tokens,
            seconds=time.perf_counter() - started,
            rig=rig,
        )
        if not after_step(report):
            return
        rows, batches = following


def _lay_out(
    rig: Rig, samples: Sequence[Sample], schedule: Schedule, step: int
) -> tuple[Sequence[Sample], list[Batch]]:
    """The rows of a step, and its micro-batches; nothing after the last step."""
    if step >= schedule.total_steps:
        return [], []
    rows = [samples[row] for row in schedule.rows_at(step)]
    return rows, rig.layout(rows)


def accumulate(
    rig: Rig, rows: Sequence[Sample], batches: list[Batch], tell: Callable[[str], None]
) -> tuple[Rig, list[Batch], torch.Tensor]:
    """The gradients of one optimizer step: its micro-batches `batches` of `rows`, and their summed loss.

    When memory runs out, the step starts again in smaller micro-batches, or with more blocks recomputed: the rig that
    did it is returned for the steps to come. Raises OutOfMemoryError if there is nothing smaller.
    """
    while True:
        loss_tokens = sum(batch.loss_count for batch in batches)
        loss_sum = torch.zeros((), device=rig.device)
        try:
            for batch in batches:
                loss_sum += rig.backward(batch, loss_tokens)
            return rig, batches, loss_sum
        except RuntimeError as error:
            recovered = recover(rig, error, max(len(row.input_ids) for row in rows))
            if recovered is None:
                raise
        # Outside of `except`, since the exception holds on to what the failed pass had allocated.
        rig.model.zero_grad(set_to_none=True)
        rig, change = recovered
        tell(change)
        batches = rig.layout(rows)
        if rig.device.type == "cuda":
            with suppress(RuntimeError):  # torch refuses for good once the end of a recording has failed
                torch.cuda.empty_cache()


def _not_finite(step: int, loss: float, norm: float, rows: Sequence[Sample]) -> str:
    return (
        f"step {step + 1}: loss {loss}, gradient norm {norm}; stopped before the update. Rows: {name_rows(rows)}. Lower"
        " train.learning_rate or look at these rows"
    )


def name_rows(rows: Sequence[Sample]) -> str:
    """Where the first three of the rows stand."""
    named = ", ".join(f"{row.source}:{row.line}" for row in rows[:3])
    return f"{named}{', ...' if len(rows) > 3 else ''}"
