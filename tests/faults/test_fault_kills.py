"""Killed in the middle of a step, of an evaluation, of continuing: the weights of a run that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fault_runs import Died, die_at, plan_of, same_weights

import tenfold
from tenfold.errors import BudgetReached, Preempted
from tenfold.ledger import open_ledger
from tenfold.receipt import Receipt
from tenfold.rig.backward import eager_backward
from tenfold.run import run as run_module
from tenfold.run import train as train_module

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
DROPOUT = {"lora": {"rank": 4, "dropout": 0.1}}


def test_killed_in_the_middle_of_an_accumulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batch three of four, of step six: no part of a gradient is left over."""
    cuts = {**DROPOUT, "pack": False}
    settings = {"train": {"micro_batch_size": 2}, "cuts": cuts}
    tenfold.train(plan_of(tmp_path, "whole", **settings))
    plan = plan_of(tmp_path, "parts", **settings)
    calls = 0

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4 * 5 + 3:
            raise Died
        return eager_backward(*arguments)

    build = train_module._build
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "_build", lambda *arguments: replace(build(*arguments), backpropagate=dying))
        with pytest.raises(Died):
            tenfold.train(plan)
    receipt = tenfold.train(plan)
    assert [event.text for event in receipt.events if event.kind == "resumed"] == ["continuing at step 4"]
    assert same_weights(tmp_path, "whole", "parts")


def test_killed_while_continuing_five_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenfold.train(plan_of(tmp_path, "whole", cuts=DROPOUT))
    plan = plan_of(tmp_path, "parts", cuts=DROPOUT)
    with monkeypatch.context() as patch:
        die_at(patch, run_module, "save_state", 3)
        with pytest.raises(Died):
            tenfold.train(plan)
    for place in ("load_tensors", "restore_rng", "environment", "load_tensors", "restore_rng"):
        with monkeypatch.context() as patch:
            die_at(patch, run_module, place, 1)
            with pytest.raises(Died):
                tenfold.train(plan)
    assert tenfold.train(plan).resumes == 1, "attempts that came to nothing leave no trace"
    assert same_weights(tmp_path, "whole", "parts")


def test_killed_between_receipt_and_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bill is complete all the same, and stays so."""
    plan = plan_of(tmp_path)
    with monkeypatch.context() as patch:
        die_at(patch, train_module, "spent_row", 1)
        with pytest.raises(Died):
            tenfold.train(plan)
    with open_ledger() as ledger:
        assert ledger.rows() == []
    for _ in range(2):
        receipt = tenfold.train(plan)
        with open_ledger() as ledger:
            assert [entry.row.run_id for entry in ledger.rows()] == [receipt.run_id]
            assert ledger.verify() == []


def test_a_stopped_evaluation_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes within the evaluation: it stops there, and the continued run owes it. Its curve is whole."""
    whole = tenfold.train(plan_of(tmp_path, "whole"))
    plan = plan_of(tmp_path, "parts")
    evaluate = run_module.evaluate_in_memory

    def signalled(rig, samples, keep_on, tell):
        runs[0].stop.requested = "SIGTERM"
        return evaluate(rig, samples, keep_on, tell)

    runs: list[run_module.Run] = []
    begin = train_module._begin
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "evaluate_in_memory", signalled)
        patch.setattr(train_module, "_begin", lambda run: (runs.append(run), begin(run)))
        with pytest.raises(Preempted, match="SIGTERM at step 5 of 10"):
            tenfold.train(plan)
    stopped = Receipt.read(tmp_path / "parts" / "receipt.json")
    assert [point.step for point in stopped.curve if point.metrics] == [], "it did not finish"
    found = tenfold.train(plan)
    curves = [[(point.step, point.metrics) for point in one.curve if point.metrics] for one in (whole, found)]
    assert curves[0] == curves[1]
    assert [step for step, _ in curves[0]] == [5, 10]
    assert same_weights(tmp_path, "whole", "parts")


def test_an_evaluation_that_the_budget_stopped_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is money for its end, but not for the weights that it may write."""
    whole = tenfold.train(plan_of(tmp_path, "whole"))
    plan = plan_of(tmp_path, "parts")

    def why_stop(run: run_module.Run, ahead_seconds: float) -> str | None:
        return "budget" if run.progress.step == 10 and ahead_seconds == run._export_seconds else None

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Run, "why_stop", why_stop)
        with pytest.raises(BudgetReached, match="at step 10 of 10"):
            tenfold.train(plan)
        with pytest.raises(BudgetReached, match="at step 10 of 10"):
            tenfold.train(plan)
    found = tenfold.train(plan)
    curves = [[(point.step, point.metrics) for point in one.curve if point.metrics] for one in (whole, found)]
    assert curves[0] == curves[1]
    assert same_weights(tmp_path, "whole", "parts")


def test_another_seed_ends_elsewhere(tmp_path: Path) -> None:
    """The control of what is said here about weights."""
    tenfold.train(plan_of(tmp_path, "a"))
    tenfold.train(plan_of(tmp_path, "b", train={"seed": 1}))
    assert not same_weights(tmp_path, "a", "b")
