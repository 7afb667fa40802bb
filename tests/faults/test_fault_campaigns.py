"""The long suite in small: each campaign tries a few faults, all hold, and its controls are caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.document import CAMPAIGNS
from faults.matrix import FAULTS
from faults.promises import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {
    "kills": 3, "crash-points": 0, "points": 6, "resumes": 2, "damages": 4, "flips": 300, "signals": 5, "budgets": 300,
    "lines": 100_000,
}  # fmt: skip
"""Crash points: of ledger and receipt alone, those of files and checkpoints have tests of their own."""


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_campaign(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / "reliability.py"), "--only", name, f"--{name}", str(COUNTS[name])]
    done = subprocess.run(
        [*command, "--seed", "7", "--busy", "--out", str(tmp_path)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 7\n")
    result = json.loads((tmp_path / f"{name}.json").read_text())
    summary = result["summary"]
    assert summary["tried"] > 0
    assert summary["held"] == summary["tried"], result["rows"]
    assert summary["controls_caught"] == summary["controls"] > 0, "the campaign would not notice a fault"


def place_exists(place: str) -> bool:
    """Whether a test, or a file of tests, is there."""
    path, _, name = place.partition("::")
    file = ROOT / "tests" / path
    return file.is_file() and (not name or f"def {name}(" in file.read_text())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_injected_somewhere(fault) -> None:
    assert fault.tests or fault.note
    for place in fault.tests:
        assert place in CAMPAIGNS or place_exists(place), place


def test_a_place_that_is_not_there_is_noticed() -> None:
    """The control."""
    assert place_exists("run/test_lock.py::test_claim")
    assert not place_exists("run/test_lock.py::test_of_nothing")
    assert not place_exists("run/test_of_nothing.py")


@pytest.mark.parametrize(
    "promise", [one for _, promises in SECTIONS for one in promises], ids=lambda one: one.promise[:40]
)
def test_every_promise_has_a_test(promise) -> None:
    path, _, campaign = promise.test.partition(" --only ")
    assert campaign in CAMPAIGNS if campaign else place_exists(path.removeprefix("tests/"))
