"""A slow disk: what it takes is counted as what it is, kept in reserve, and paid before the next step begins."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from fault_runs import plan_of, same_weights

import tenfold
from tenfold import durable
from tenfold.errors import BudgetReached
from tenfold.planner import Plan
from tenfold.receipt import Receipt
from tenfold.run import loop, meter
from tenfold.run import run as run_module

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
SLOW_SECONDS = 1000.0
"""What each fsync is made to take, on a clock that is put forward: far more than all the rest of a run together."""


class Clock:
    """Stands for the module `time` where a run looks it up."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __getattr__(self, name: str) -> Any:
        function = getattr(time, name)
        return (lambda: function() + self.ahead) if name in ("monotonic", "perf_counter") else function


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (loop, meter, run_module):
        monkeypatch.setattr(module, "time", made)
    return made


def slow_disk(monkeypatch: pytest.MonkeyPatch, clock: Clock, happened: list[str] | None = None) -> None:
    """Each fsync takes long. What begins and ends is noted: "save", "saved" and "step"."""
    fsync, save, accumulate = os.fsync, run_module.save_state, loop.accumulate
    noted = [] if happened is None else happened

    def slow(descriptor: int) -> None:
        fsync(descriptor)
        clock.ahead += SLOW_SECONDS

    def saving(*arguments: Any) -> Path:
        noted.append("save")
        path = save(*arguments)
        noted.append("saved")
        return path

    def stepping(*arguments: Any) -> Any:
        noted.append("step")
        return accumulate(*arguments)

    monkeypatch.setattr(durable.os, "fsync", slow)
    monkeypatch.setattr(run_module, "save_state", saving)
    monkeypatch.setattr(loop, "accumulate", stepping)


def plan_without_evaluations(folder: Path, name: str, hours: float | None = None) -> Plan:
    """Ten steps, a checkpoint after every second, one evaluation at the end."""
    sections = {} if hours is None else {"budget": {"hours": hours}}
    return plan_of(folder, name, train={"eval_every_steps": 100}, **sections)


def test_saves_are_counted_apart_and_one_after_the_other(tmp_path: Path, monkeypatch, clock: Clock) -> None:
    tenfold.train(plan_without_evaluations(tmp_path, "quick"))
    happened: list[str] = []
    with monkeypatch.context() as patch:
        slow_disk(patch, clock, happened)
        receipt = tenfold.train(plan_without_evaluations(tmp_path, "slow"))
    assert happened == ["step", "step", "save", "saved"] * 5
    seconds = receipt.seconds_by_part
    assert seconds["checkpoint"] >= 5 * SLOW_SECONDS
    assert seconds["train"] < SLOW_SECONDS
    assert (receipt.measured("train_seconds") or 0) < SLOW_SECONDS, "no step holds a save"
    assert all((point.tokens_per_second or 0) > 0.1 for point in receipt.curve if point.loss is not None)
    assert receipt.bill.billed_seconds >= seconds["checkpoint"]
    assert same_weights(tmp_path, "quick", "slow")


def test_a_slow_step_is_a_slow_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The control: the same clock within a step is seen in its time."""
    accumulate = loop.accumulate

    def slow(*arguments: Any) -> Any:
        clock.ahead += SLOW_SECONDS
        return accumulate(*arguments)

    monkeypatch.setattr(loop, "accumulate", slow)
    receipt = tenfold.train(plan_without_evaluations(tmp_path, "run"))
    assert receipt.seconds_by_part["train"] >= 10 * SLOW_SECONDS
    assert (receipt.measured("train_seconds") or 0) >= 10 * SLOW_SECONDS


@pytest.mark.parametrize("reserved", [True, False], ids=["kept in reserve", "control: forgotten"])
def test_the_budget_holds_the_save_that_ends_it(reserved: bool, tmp_path: Path, monkeypatch, clock: Clock) -> None:
    """There is time for two saves and a half: the run ends with the second."""
    with monkeypatch.context() as patch:
        slow_disk(patch, clock)
        tenfold.train(plan_without_evaluations(tmp_path, "measured"))
    one_save = Receipt.read(tmp_path / "measured" / "receipt.json").seconds_by_part["checkpoint"] / 5
    clock.ahead = 0.0
    slow_disk(monkeypatch, clock)
    why_stop = run_module.Run.why_stop

    def forgetful(run: run_module.Run, ahead_seconds: float) -> str | None:
        run._save_seconds = 0.0
        return why_stop(run, ahead_seconds)

    if not reserved:
        monkeypatch.setattr(run_module.Run, "why_stop", forgetful)
    limit_seconds = 2.5 * one_save
    with pytest.raises(BudgetReached, match=f"at step {4 if reserved else 6} of 10"):
        tenfold.train(plan_without_evaluations(tmp_path, "limited", limit_seconds / 3600))
    checkpoints = Receipt.read(tmp_path / "limited" / "receipt.json").seconds_by_part["checkpoint"]
    assert (checkpoints < limit_seconds) == reserved
