"""The checks before the first step, counted: a few short rows in several layouts (checks/layout, checks/exported)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

from tenfold.job.job import Job
from tenfold.job.work import Work, evaluation_work, training_work
from tenfold.workload import Workload

ROWS, AMONG = 4, 64
"""The shortest of so many, as in checks/layout."""

LAYOUTS = 4
"""In which each row goes forward and backward: together, alone, in one step, and in two parts of one."""

EXPORTED_PASSES = 3
"""Forward, of half of the rows: as trained, as written and read again, as merged."""

MERGED_BYTES = 16
"""Of merging one weight: its float32 sum with the adapter's product written and read, then rounded."""


def checking_work(job: Job) -> Work:
    """Of all checks that run the model, whose layers are not compiled then."""
    if not job.checked:
        return Work()
    workload = _few_rows(job.workload)
    few = replace(
        job,
        workload=workload,
        batch_size=ROWS // 2,  # eight micro-batches in all: one, four, one and two
        micro_rows=ROWS // 2,
        steps_wanted=None,
        epochs=1.0,
        evaluations=1,
        pretrained=True,
        original=None,
        compiled=False,
        optimizer="adamw",
    )
    passes = replace(training_work(few), update_bytes=0.0, update_launches=0.0, steps=0.0)
    if not job.adapted or job.quantized or job.compiled:
        return passes
    return passes + evaluation_work(few) + Work(streamed_bytes=MERGED_BYTES * job.shape.block_parameters)


@lru_cache(maxsize=64)
def _few_rows(workload: Workload) -> Workload:
    """The shortest rows of some that are drawn from a histogram, once for each layout."""
    among = min(AMONG, workload.rows)
    lengths = workload.quantiles(among)[:ROWS]
    counts = Counter(length for length in lengths for _ in range(LAYOUTS))
    share = workload.loss_tokens / workload.tokens
    tokens = LAYOUTS * sum(lengths)
    exported = round(EXPORTED_PASSES * sum(lengths) / 2)
    return Workload(tuple(sorted(counts.items())), round(share * tokens), exported, workload.labels)
