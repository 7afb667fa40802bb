"""The constants of memory on a CPU, fitted to measured peaks: what libraries hold, and what an allocator breaks up.

    python bench/accuracy/memory_fit.py bench/results/plan_accuracy_cpu_2026-11-28.json

Prints them for src/tenfold/evidence/efficiency.json, and how far off peaks are of shapes that were left out of the fit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from predict import Case, cases  # noqa: E402

from tenfold.job import peak_bytes  # noqa: E402

CONSTANTS = ("library_bytes", "kernel_bytes", "fragmentation", "holes")


def parts_of(case: Case) -> tuple[float, list[float]]:
    """Bytes that no constant counts, and by how much each constant counts."""
    plain = replace(case.job.machine.overheads, library_bytes=0.0, kernel_bytes=0.0, fragmentation=0.0, holes=0.0)

    def peak(**constant: float) -> float:
        machine = replace(case.job.machine, overheads=replace(plain, **constant))
        return peak_bytes(replace(case.job, machine=machine))

    rest = peak()
    return rest, [peak(**{name: 1.0}) - rest for name in CONSTANTS]


def fitted(every: Sequence[Case]) -> np.ndarray:
    """The constants with which relative errors are least, none below nothing."""
    parts = [parts_of(case) for case in every]
    factors = np.array([row for _, row in parts]) / np.array([[case.peak_bytes] for case in every])
    wanted = np.array([1 - rest / case.peak_bytes for (rest, _), case in zip(parts, every, strict=True)])
    scales = np.abs(factors).max(axis=0)
    used = np.flatnonzero(scales)
    found = np.zeros(len(CONSTANTS))
    found[used] = np.linalg.lstsq(factors[:, used] / scales[used], wanted, rcond=None)[0] / scales[used]
    return found.clip(0.0)


def misses(every: Sequence[Case], of: Sequence[Case]) -> list[float]:
    """Relative errors of the peaks `of`, by constants fitted to `every`."""
    constants = fitted(every)
    foretold = [rest + float(np.dot(row, constants)) for rest, row in map(parts_of, of)]
    return [found / case.peak_bytes - 1 for found, case in zip(foretold, of, strict=True)]


def main() -> None:
    """Fit and print."""
    every = [case for path in sys.argv[1:] for case in cases(json.loads(Path(path).read_text()))]
    for name, value in zip(CONSTANTS, fitted(every), strict=True):
        print(f"{name}: {value:.3g}")
    held_out: list[float] = []
    for group in sorted({case.group for case in every}):
        own = [case for case in every if case.group == group]
        held_out += misses([case for case in every if case.group != group], own)
    for what, found in (("the rows themselves", misses(every, every)), ("shapes left out", held_out)):
        print(f"{what}: mean {np.mean(np.abs(found)):.1%}, worst {np.max(np.abs(found)):.1%}")


if __name__ == "__main__":
    main()
