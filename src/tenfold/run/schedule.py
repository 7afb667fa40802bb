"""What happens at which step: learning rates, row order, epochs. Pure functions of the step, so resuming is exact."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows; the last one may be smaller."""
        return math.ceil(self.rows / self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """The rate of step `step`, counted from 0: linear warmup, then the shape's decay to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return self.learning_rate * decay[self.shape]

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


def make_schedule(wish: TrainWish, rows: int, learning_rate: float) -> Schedule:
    """The schedule that a recipe's `train` section asks for."""
    steps_per_epoch = math.ceil(rows / wish.batch_size)
    total = wish.max_steps if wish.max_steps is not None else max(1, math.ceil(wish.epochs * steps_per_epoch))
    warmup = round(wish.warmup * total) if wish.warmup < 1 else int(wish.warmup)
    return Schedule(rows, wish.batch_size, total, learning_rate, wish.schedule, warmup, wish.seed, wish.shuffle)
