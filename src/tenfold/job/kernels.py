"""Kernels that a CPU's library compiles for matrix products, one for each shape that it meets (rig/filler)."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from random import Random

from tenfold.job.activations import FLOAT32_BYTES
from tenfold.job.checking import MOST_TOKENS, tried_lengths
from tenfold.job.job import Job
from tenfold.workload import FEWEST, REPRESENTATIVE_ROWS, Workload, filling_step


def compiled_kernels(job: Job) -> int:
    """How many a run meets, its checks included: numbers of rows, times the products that each of them is multiplied
    in. None in float32, for which nothing is compiled, and none on a GPU."""
    if job.machine.vendor_kind != "cpu" or job.dtype_bytes == FLOAT32_BYTES:
        return 0
    rows = min(job.micro_rows, job.batch_size)
    whole, bearing = _row_counts(job.workload, job.batch_size, job.packed_tokens, rows, job.filled_multiple)
    narrowed = job.last_block_share < 1
    tried = _tried_row_counts(job) if job.checked else 0
    return _products(job) * (whole + (bearing if narrowed else 0) + tried)


def _tried_row_counts(job: Job) -> int:
    """Numbers of tokens that the checks before the first step multiply, which training meets no more: short rows, each
    alone and several together (checks/layout). What bears loss in them is not looked at apart."""
    rows = tried_lengths(job.workload, MOST_TOKENS)
    together = [rows, rows[1:]] if len(rows) > 1 else []
    if job.packed_tokens is not None:
        multiple = job.filled_multiple
        return len({ceil(sum(part) / multiple) for part in [*([row] for row in rows), *together]})
    padded = {(len(part), max(part)) for part in together}
    return len(set(rows)) + len(padded)


def _products(job: Job) -> int:
    """Different products of so many rows: forward, the input's gradient, and that of what learns."""
    linears = job.shape.block_linears
    found = len({(x.in_features, x.out_features) for x in linears}) * (2 if job.adapted else 3)
    if job.adapted:
        adapted = [x for x in linears if x.name in job.adapted]
        found += 3 * (len({x.in_features for x in adapted}) + len({x.out_features for x in adapted}))
    return found


@lru_cache(maxsize=1024)
def _row_counts(
    workload: Workload, batch_rows: int, packed_tokens: int | None, micro_rows: int, multiple: int
) -> tuple[int, int]:
    """How many different numbers of tokens micro-batches have, and how many of tokens that bear loss: of the epoch
    whose rows stand at even quantiles."""
    share = workload.loss_tokens / workload.tokens
    if packed_tokens is not None:
        tokens = [sum(rows) for rows in workload.representative_bins(batch_rows, packed_tokens)]
        return _sizes(tokens, [multiple] * len(tokens)), _bearing(tokens, share, multiple)
    rows = workload.quantiles(min(workload.rows, REPRESENTATIVE_ROWS))
    Random(0).shuffle(rows)
    parts = [rows[start : start + micro_rows] for start in range(0, len(rows), micro_rows)]
    longest = [max(part) for part in parts]
    steps = [1 if multiple == 1 else filling_step(length, multiple) for length in longest]
    return _sizes(longest, steps), _bearing([sum(part) for part in parts], share, FEWEST)


def _sizes(numbers: list[int], steps: list[int]) -> int:
    return len({ceil(number / step) * step for number, step in zip(numbers, steps, strict=True)})


def _bearing(tokens: list[int], share: float, multiple: int) -> int:
    numbers = [max(1, round(share * number)) for number in tokens]
    return _sizes(numbers, [filling_step(number, multiple) for number in numbers])
