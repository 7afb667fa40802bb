"""Rows of logits of the micro-batch that needs most memory: a packed one is full, where others are filled up more."""

from __future__ import annotations

from math import ceil

from tenfold.job.job import STEPS_OF_LENGTH, Job
from tenfold.workload import FEWEST, filling_step


def fullest_head_rows(job: Job) -> float:
    """All tokens, or once fused those that bear loss and what fills them up (rig/batch.loss_places)."""
    tokens = job.largest.tokens
    if job.task == "classify":
        return 0.0
    if job.loss_rows is None:
        return tokens
    if job.packed_tokens is None:
        bearing, fewest = tokens * job.head_share, FEWEST if job.compiles_products else 1
    else:
        bearing = tokens * job.loss_share
        fewest = max(1, int(tokens) // STEPS_OF_LENGTH) if job.steady else job.filled_multiple
    multiple = fewest if fewest == 1 else filling_step(ceil(bearing), fewest)
    return bearing if multiple == 1 else float(multiple * ceil(bearing / multiple))


def fullest_last_block_share(job: Job) -> float:
    """Share of its tokens that the last block computes beyond keys and values."""
    return job.computed_last(fullest_head_rows(job) / job.largest.tokens)
