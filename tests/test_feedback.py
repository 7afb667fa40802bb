"""Finished runs correct the plans to come, through the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tenfold.job import Work, work_seconds
from tenfold.job.fit import learned
from tenfold.ledger import Row, feedback
from tenfold.machine import gpu_named

MODULE = import_module("tenfold.ledger.feedback")
LEAST_SECONDS: float = MODULE.LEAST_SECONDS

MACHINE = gpu_named("H200 SXM")
SLOWER = replace(MACHINE, efficiency=replace(MACHINE.efficiency, products=0.6 * MACHINE.efficiency.products))
WORK = Work(products=5e16, streamed_bytes=1e13, steps=100, micro_batches=100)


@pytest.fixture(autouse=True)
def _runs_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere but in tests."""
    monkeypatch.setattr(MODULE, "LEAST_SECONDS", LEAST_SECONDS)


def receipt(seconds: float, **changes: Any) -> dict[str, Any]:
    """What feedback reads of one."""
    measured = {"train_seconds": seconds, "steps": 100.0, "peak_memory_bytes": 21e9, **changes.pop("measured", {})}
    return {
        "plan": {
            "machine": {"dtype": "bfloat16"},
            "prediction": {"work": vars(WORK), "steps": 100, "seconds_by_part": {"compile": 0.0}},
        },
        "measurements": [
            {"name": name, "measured": value, "predicted": 20e9 if name == "peak_memory_bytes" else None}
            for name, value in measured.items()
        ],
        "versions": {"tenfold": "0.1.0", "torch": "2.13.0"},
        "resumes": 0,
        **changes,
    }


def rows(folder: Path, receipts: Sequence[Any], machine: str = "H200 SXM") -> list[Row]:
    """The ledger's rows of runs with these receipts, oldest first."""
    found: list[Row] = []
    for number, content in enumerate(receipts):
        path = folder / f"{machine}-{number}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        at = datetime.now(UTC) + timedelta(minutes=number)
        found.append(Row(str(number), "spent", "run", "m", "sft", machine, at, receipt_path=str(path)))
    return found


def test_slower_runs_make_the_next_plan_slower(tmp_path: Path) -> None:
    seconds = work_seconds(WORK, SLOWER)
    found = feedback(rows(tmp_path, [receipt(seconds)] * 4), "H200 SXM", "bfloat16")
    assert len(found.observations) == 4
    corrected = learned(MACHINE, found.observations)
    before, after = (work_seconds(WORK, machine) / seconds - 1 for machine in (MACHINE, corrected))
    assert abs(after) < 0.2 * abs(before)
    assert "corrected by 4 finished runs" in corrected.efficiency.source
    assert corrected.efficiency.error <= MACHINE.efficiency.error


def test_without_runs_nothing_is_learned() -> None:
    assert learned(MACHINE, ()) == MACHINE


def test_one_run_moves_a_rate_and_leaves_a_guess_a_guess(tmp_path: Path) -> None:
    guessed = replace(MACHINE, efficiency=replace(MACHINE.efficiency, guessed=True, error=0.5))
    seconds = work_seconds(WORK, SLOWER)
    found = feedback(rows(tmp_path, [receipt(seconds)] * 3), "H200 SXM", "bfloat16").observations
    one, three = learned(guessed, found[:1]), learned(guessed, found)
    assert (one.efficiency.guessed, one.efficiency.error) == (True, 0.5)
    assert (three.efficiency.guessed, three.efficiency.error < 0.5) == (False, True)


def test_a_run_that_stopped_half_way_counts_for_what_it_did(tmp_path: Path) -> None:
    half = receipt(10.0, measured={"steps": 50.0})
    (observation,) = feedback(rows(tmp_path, [half]), "H200 SXM", "bfloat16").observations
    assert observation.work.products == WORK.products / 2


def test_peaks_are_told_as_ratios(tmp_path: Path) -> None:
    found = feedback(rows(tmp_path, [receipt(10.0)]), "H200 SXM", "bfloat16")
    assert found.peak_ratios == pytest.approx((1.05,))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        receipt(1.0),
        receipt(10.0, resumes=1),
        receipt(10.0, measured={"train_seconds": None}),
        {**receipt(10.0), "plan": {"machine": {"dtype": "float32"}, "prediction": receipt(10.0)["plan"]["prediction"]}},
        {**receipt(10.0), "plan": {"machine": {"dtype": "bfloat16"}, "prediction": {}}},
    ],
)
def test_what_says_nothing_of_the_machines_speed_is_left_out(content: Any, tmp_path: Path) -> None:
    assert feedback(rows(tmp_path, [content]), "H200 SXM", "bfloat16").observations == ()


def test_only_runs_of_this_machine_and_of_the_newest_versions_count(tmp_path: Path) -> None:
    old = receipt(10.0, versions={"tenfold": "0.1.0", "torch": "2.11.0"})
    here = rows(tmp_path, [old, receipt(11.0), receipt(12.0)])
    there = rows(tmp_path, [receipt(99.0)], "L4")
    found = feedback([*here, *there], "H200 SXM", "bfloat16").observations
    assert [one.seconds for one in found] == [11.0, 12.0]


def test_a_receipt_that_is_gone_is_no_fault() -> None:
    row = Row("1", "spent", "run", "m", "sft", "H200 SXM", receipt_path="/nowhere/receipt.json")
    assert feedback([row], "H200 SXM", "bfloat16").observations == ()
