"""What compiled layers and recorded passes pay for shapes of micro-batches that are new to them (rig/graphs)."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from tenfold.job.job import STEPS_OF_LENGTH, Job
from tenfold.workload import Workload, filling_step, power_of_two

EAGER_CALLS, MOST_GRAPHS = 2, 24
"""How often a shape runs launch by launch before it is recorded, and how many are recorded: rig/graphs."""

SHORTEST_LIMIT, TOKENS_A_PLACE = 1024, 128
"""Rows have a power of two as their limit, this at least, and places as many as rows of so many tokens: rig/ragged."""

RECORDING = 1.3
"""What recording a pass takes, in passes that its host launches: 0.123 and 0.136 s beside 2,400 launches of 38 and 44
microseconds. By least squares a micro-batch took 0.107 and 0.122 s launch by launch, 0.168 and 0.181 recorded and
replayed, 0.045 and 0.044 replayed (steps 4 to 60 of one run on two hosts, the shapes of their micro-batches known:
bench/results/plan_accuracy_h200_2026-11-28_warm.json and _after.json)."""


class NewShapes(NamedTuple):
    """Of the micro-batches of a run."""

    eager: float
    """Passes that are launched kernel by kernel."""
    recorded: float
    """Shapes that are recorded."""


def of_one_length(job: Job) -> bool:
    """All rows of a micro-batch are equally long, filler among them: sizes that are compiled as numbers, and dense
    attention."""
    length = job.workload.longest
    if length * job.workload.rows != job.workload.tokens:
        return False
    if not job.steady:
        return True
    rows = min(job.batch_size, max(1, (job.packed_tokens or 0) // length))
    return rows * length % job.filled_multiple == 0


def new_shapes(job: Job) -> NewShapes:
    """Passes that no graph has been recorded for, in expectation. A shape that is never seen again costs its passes.

    Nothing is counted of classifiers, which record too: how often their shapes repeat was not measured.
    """
    if not job.records or job.packed_tokens is None or job.task == "classify":
        return NewShapes(0.0, 0.0)
    counts = _shape_counts(job.workload, job.batch_size, job.packed_tokens, job.filled_multiple)
    scale = job.micro_batches / sum(counts)
    calls = [count * scale for count in counts]
    recorded = [min(1.0, max(0.0, count - EAGER_CALLS)) for count in calls[:MOST_GRAPHS]]
    eager = sum(min(float(EAGER_CALLS), count) for count in calls[:MOST_GRAPHS]) + sum(calls[MOST_GRAPHS:])
    return NewShapes(eager, sum(recorded))


@lru_cache(maxsize=1024)
def _shape_counts(workload: Workload, batch_rows: int, tokens: int, multiple: int) -> tuple[int, ...]:
    """Micro-batches of each shape in the epoch that stands for all, most frequent first."""
    share = workload.loss_tokens / workload.tokens
    shapes = Counter(_shape(rows, multiple, share) for rows in workload.representative_bins(batch_rows, tokens))
    return tuple(sorted(shapes.values(), reverse=True))


def _shape(rows: list[int], multiple: int, loss_share: float) -> tuple[int, ...]:
    """Tokens, places, limit and rows of logits of a steady micro-batch."""
    longest, tokens = max(rows), sum(rows)
    filled = ceil(tokens / multiple) * multiple
    bearing = round(loss_share * tokens)
    step = filling_step(bearing, max(1, filled // STEPS_OF_LENGTH))
    of_logits = ceil(bearing / step) * step
    if filled == tokens and longest == min(rows):
        return filled, len(rows), longest, of_logits
    count = len(rows) + ceil((filled - tokens) / longest)
    return filled, power_of_two(max(count, filled // TOKENS_A_PLACE)), _limit(longest), of_logits


def _limit(longest: int) -> int:
    return power_of_two(max(longest, SHORTEST_LIMIT))
