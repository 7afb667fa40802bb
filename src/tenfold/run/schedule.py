"""What happens at which step: learning rates, row order, epochs. Pure functions of the step, so resuming is exact."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tenfold.cuts import WarmStart
from tenfold.recipe import TrainWish


@dataclass(frozen=True)
class Schedule:
    """The course of a run of `rows` training rows, fixed before it starts."""

    rows: int
    batch_size: int
    total_steps: int
    learning_rate: float
    shape: str
    """linear, cosine or constant, after the warmup."""
    warmup_steps: int
    seed: int
    shuffle: bool
    rows_learning_rate: float | None = None
    """Peak rate of single rows of embeddings, where they have one of their own."""
    new_alone_steps: int = 0
    """In so many first steps only what is new in the model learns."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows; the last one may be smaller."""
        return math.ceil(self.rows / self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """The rate of step `step`, counted from 0: linear warmup, then the shape's decay to 0."""
        return self.learning_rate * self._share_at(step)

    def rows_learning_rate_at(self, step: int) -> float:
        """The same course for single rows of embeddings."""
        return (self.rows_learning_rate or self.learning_rate) * self._share_at(step)

    def _share_at(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return decay[self.shape]

    def rows_at(self, step: int) -> Sequence[int]:
        """The numbers of the rows of step `step`."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.rows, self.seed, epoch) if self.shuffle else range(self.rows)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def epoch_ends_after(self, step: int) -> bool:
        """Step `step` is the last of an epoch or of the run."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.total_steps


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"order {seed} {epoch}").shuffle(order)
    return order


def make_schedule(wish: TrainWish, rows: int, learning_rate: float, warm_start: WarmStart | None = None) -> Schedule:
    """The schedule that a recipe's `train` section asks for, and a warm start for what is new."""
    steps_per_epoch = math.ceil(rows / wish.batch_size)
    total = wish.max_steps if wish.max_steps is not None else max(1, math.ceil(wish.epochs * steps_per_epoch))
    warmup = round(wish.warmup * total) if wish.warmup < 1 else int(wish.warmup)
    schedule = Schedule(rows, wish.batch_size, total, learning_rate, wish.schedule, warmup, wish.seed, wish.shuffle)
    if warm_start is None:
        return schedule
    alone = round(warm_start.rows_first * total) if warm_start.changes_vocabulary or warm_start.grow_layers else 0
    return replace(schedule, rows_learning_rate=warm_start.rows_learning_rate, new_alone_steps=alone)
