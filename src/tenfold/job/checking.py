"""The checks before the first step, counted: a few short rows in several layouts (checks/layout, checks/exported)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

from tenfold.job.job import Job
from tenfold.job.work import Work, evaluation_work, training_work
from tenfold.workload import Workload

ROWS, AMONG, MOST_TOKENS = 4, 64, 256
"""The shortest of so many, and of each so many tokens at most, as in checks/layout."""

LAYOUTS = ((1, 1), (2, 3))
"""(how often, rows a micro-batch): each row alone; and all in one step, and in two parts of one."""

EXPORTED_PASSES = 3
"""Forward, of half of the rows: as trained, as written and read again, as merged."""

MERGED_BYTES = 16
"""Of merging one weight: its float32 sum with the adapter's product written and read, then rounded."""


def checking_work(job: Job, most_tokens: int = MOST_TOKENS) -> Work:
    """Of all checks that run the model, whose layers are not compiled then; of each row at most so many tokens."""
    if not job.checked:
        return Work()
    passes = Work()
    for times, rows in LAYOUTS:
        passes += replace(
            training_work(_tried(job, times, rows, most_tokens)), update_bytes=0.0, update_launches=0.0, steps=0.0
        )
    if not job.adapted or job.quantized or job.compiled:
        return passes
    exported = evaluation_work(_tried(job, 1, ROWS // 2, most_tokens))
    return passes + exported + Work(streamed_bytes=MERGED_BYTES * job.shape.block_parameters)


def _tried(job: Job, times: int, rows: int, most_tokens: int) -> Job:
    """The job of a few rows, so many in each of its steps."""
    return replace(
        job,
        workload=_few_rows(job.workload, times, most_tokens),
        batch_size=rows,
        micro_rows=rows,
        steps_wanted=None,
        epochs=1.0,
        evaluations=1,
        pretrained=True,
        original=None,
        compiled=False,
        optimizer="adamw",
    )


def tried_lengths(workload: Workload, most_tokens: int) -> list[int]:
    """Of the rows that are tried: unlike ones before like ones (checks/layout.few_rows)."""
    ordered = workload.quantiles(min(AMONG, workload.rows))
    unlike = sorted(set(ordered))[:ROWS]
    like = ordered.copy()
    for length in unlike:
        like.remove(length)
    return [min(length, most_tokens) for length in [*unlike, *like][:ROWS]]


@lru_cache(maxsize=64)
def _few_rows(workload: Workload, times: int, most_tokens: int) -> Workload:
    """The shortest rows of some that are drawn from a histogram, each so many times."""
    among = min(AMONG, workload.rows)
    lengths = [min(length, most_tokens) for length in workload.quantiles(among)[:ROWS]]
    counts = Counter(length for length in lengths for _ in range(times))
    share = workload.loss_tokens / workload.tokens
    tokens = times * sum(lengths)
    exported = round(EXPORTED_PASSES * sum(lengths) / 2)
    return Workload(tuple(sorted(counts.items())), round(share * tokens), exported, workload.labels)
