"""The shipped rates, fitted to measured rows: src/tenfold/evidence/efficiency.json, its measured machines.

Guessed rows ("cuda", "cpu, ...") are where every fit starts; a rate that no row speaks of stays as it was guessed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from predict import Case, cases, without_group

from measure import RESULTS
from tenfold.job import work_seconds
from tenfold.job.fit import LEAST_ERROR, Observation, fit_efficiency
from tenfold.machine import RATES, Efficiency, Machine, efficiency_from

EVIDENCE = Path(__file__).resolve().parents[2] / "src" / "tenfold" / "evidence" / "efficiency.json"
PRIOR_WIDTH = 0.2
"""Of the logarithm of a guessed rate, a factor of 1.2: of 0.1 to 1.0 what foretells other shapes best."""

MEASURED = {
    "AMD EPYC, bfloat16": ("cpu, bfloat16", ("plan_accuracy_cpu.json",)),
    "AMD EPYC, float32": ("cpu, float32", ("plan_accuracy_cpu.json",)),
    "NVIDIA H200": ("cuda", ("plan_accuracy_h200.json",)),
}
"""By the name of the machine: where its fit starts, and the files under bench/results that hold its rows."""


def write_evidence() -> None:
    """Fit every measured machine, and put its row in its place."""
    body = json.loads(EVIDENCE.read_text())
    for name, (start, names) in MEASURED.items():
        rows = {row["match"]: row for row in body["machines"]}
        dtype = "float32" if name.endswith("float32") else "bfloat16"
        every = [case for file in names for case in cases(json.loads((RESULTS / file).read_text()))]
        every = [case for case in every if case.job.machine.dtype == dtype]
        prior = replace(every[0].job.machine, efficiency=efficiency_from(rows[start]))
        found = _fitted(every, prior, dtype, names)
        rows[name] = {"match": name, **_rounded(found)}
        body["machines"] = list(rows.values())
        print(f"{name}: {len(every)} rows, error {found.error:.0%}")
    EVIDENCE.write_text(json.dumps(body, indent=2) + "\n")


def _fitted(every: Sequence[Case], prior: Machine, dtype: str, names: Sequence[str]) -> Efficiency:
    found = fit_efficiency(prior, [Observation(case.work, case.step_seconds) for case in every], PRIOR_WIDTH)
    groups = {case.group for case in every}
    misses = [
        work_seconds(
            case.work, prior, found if len(groups) < 2 else without_group(every, case.group, prior, dtype, PRIOR_WIDTH)
        )
        / case.step_seconds
        - 1
        for case in every
    ]
    error = max(LEAST_ERROR, 2 * (sum(miss**2 for miss in misses) / len(misses)) ** 0.5)
    shapes = f"{len(groups)} shapes, each met from the others" if len(groups) > 1 else "one shape, nothing held out"
    source = f"fit to {len(every)} runs of {shapes}: bench/results/{', '.join(names)}"
    return replace(found, error=error if len(groups) > 1 else max(error, 0.25), guessed=False, source=source)


def _rounded(found: Efficiency) -> dict[str, Any]:
    rates = {name: float(f"{getattr(found, name):.3g}") for name in RATES}
    return {**rates, "error": round(found.error, 2), "guessed": found.guessed, "source": found.source}
