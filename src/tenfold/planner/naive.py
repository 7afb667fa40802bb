"""The naive way on paper, and how long a baseline trains: as many rows as the run it is set beside."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from tenfold.cuts import FineTune
from tenfold.job import Job
from tenfold.recipe import TrainWish

BASELINE_ROWS = 8
"""per_device_train_batch_size of transformers.TrainingArguments, and of TRL's SFTConfig."""


def baseline_epochs(train: TrainWish, rows: int) -> float:
    """`num_train_epochs` of a baseline: the recipe's, which are the library's own 3 where the recipe names none.

    With max_steps, so many passes over `rows` rows as those steps make. Half a baseline's step less where the last pass
    is broken off, because the libraries round up to whole steps.
    """
    if train.max_steps is None:
        return train.epochs
    whole, rest = divmod(train.max_steps, ceil(rows / train.batch_size))
    broken = rest * train.batch_size
    return whole + (broken - min(BASELINE_ROWS, broken) / 2) / rows


def naive_job(job: Job, train: TrainWish) -> Job:
    """transformers.Trainer at its defaults: all weights, 8 padded rows a step, the recipe's epochs, one evaluation."""
    return replace(
        FineTune().price(job.uncut()),
        batch_size=BASELINE_ROWS,
        micro_rows=BASELINE_ROWS,
        steps_wanted=None,
        epochs=baseline_epochs(train, job.workload.rows),
        evaluations=min(1, job.evaluations),
        optimizer="adamw",
        checked=False,
    )
