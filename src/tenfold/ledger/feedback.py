"""What finished runs say of predictions: work that a plan counted beside the seconds that it took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tenfold.job import Work
from tenfold.job.fit import Observation
from tenfold.ledger.row import Row

NEWEST = 30
"""Runs that are looked at for each machine: enough to average their differences, soon enough to follow a new driver."""

LEAST_SECONDS = 5.0
"""Training shorter than this says more of warming up than of the machine."""

FITTING_VERSIONS = ("tenfold", "torch")
"""Packages whose version has to be the newest run's own: another one counts, or computes, otherwise."""


@dataclass(frozen=True)
class Feedback:
    """What the finished runs of one machine say."""

    observations: tuple[Observation, ...]
    peak_ratios: tuple[float, ...]
    """Measured over predicted peaks."""


def feedback(rows: Sequence[Row], machine: str, dtype: str) -> Feedback:
    """Of the newest runs of a machine in a number format, as far as their receipts are still there."""
    spent = [row for row in rows if row.kind == "spent" and row.machine == machine]
    runs = list({row.receipt_path: row for row in spent}.values())  # a receipt may have been written again
    receipts = [found for row in runs[-NEWEST:] if (found := _receipt(row)) is not None]
    same = [one for one in receipts if one["plan"]["machine"].get("dtype") == dtype]
    newest = same[-1]["versions"] if same else {}
    same = [one for one in same if all(one["versions"].get(name) == newest.get(name) for name in FITTING_VERSIONS)]
    return Feedback(
        tuple(found for one in same if (found := _observation(one)) is not None),
        tuple(ratio for one in same if (ratio := _peak_ratio(one)) is not None),
    )


def _receipt(row: Row) -> Mapping[str, Any] | None:
    """The receipt of a run, if it is where it was and is one of this version."""
    if row.receipt_path is None:
        return None
    try:
        found = json.loads(Path(row.receipt_path).read_text(encoding="utf-8"))
        return found if {"plan", "measurements", "versions"} <= found.keys() and "work" in found["plan"]["prediction"] \
            else None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _observation(receipt: Mapping[str, Any]) -> Observation | None:
    """Work and seconds of the steps that were done, less what the first of them was foretold to compile."""
    measured = _measured(receipt["measurements"])
    foretold = receipt["plan"]["prediction"]
    seconds, steps = measured.get("train_seconds"), measured.get("steps")
    if not seconds or not steps or receipt.get("resumes"):
        return None
    seconds -= foretold["seconds_by_part"].get("compile", 0.0)
    if seconds < LEAST_SECONDS:
        return None
    share = steps / foretold["steps"]
    known = {field.name for field in fields(Work)}
    work = {name: value * share for name, value in foretold["work"].items() if name in known}
    return Observation(Work(**work), seconds)


def _peak_ratio(receipt: Mapping[str, Any]) -> float | None:
    row = next((row for row in receipt["measurements"] if row["name"] == "peak_memory_bytes"), None)
    return None if row is None or not row["predicted"] or not row["measured"] else row["measured"] / row["predicted"]


def _measured(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {row["name"]: row["measured"] for row in rows if row.get("measured") is not None}
