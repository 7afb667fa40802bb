"""What a killed attempt has spent is billed and counts against the budget; clocks that jump change nothing of it."""

from __future__ import annotations

import ast
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from fault_runs import Died, die_at, plan_of

import tenfold
from tenfold.errors import BudgetReached
from tenfold.ledger import open_ledger
from tenfold.run import account as account_module
from tenfold.run import run as run_module
from tenfold.run import tally as tally_module
from tenfold.run import train as train_module
from tenfold.run.tally import NAME, Spent, Tally
from tenfold.run.train import train

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
SOURCE = Path(tenfold.__file__).parent
A_DAY_SECONDS = 86_400
"""The least that a clock jumps here."""


def killed(plan, monkeypatch: pytest.MonkeyPatch, after_saves: int, age_seconds: float) -> None:
    """An attempt that is killed before its next save; its process is said to have an age."""
    with monkeypatch.context() as patch:
        die_at(patch, run_module, "save_state", after_saves + 1)
        with pytest.raises(Died):
            train(plan, age_seconds=age_seconds)


@pytest.mark.parametrize("saves", [0, 2])
def test_seconds_after_the_last_checkpoint_are_billed(saves: int, tmp_path: Path, monkeypatch) -> None:
    """A thousand seconds each of two attempts that were killed, one of them before any checkpoint."""
    plan = plan_of(tmp_path)
    killed(plan, monkeypatch, saves, 1000.0)
    killed(plan, monkeypatch, 0, 1000.0)
    receipt = train(plan)
    assert 2000 < receipt.bill.billed_seconds < 3000, "once, and no second of them twice"
    assert receipt.seconds_by_part["import"] == pytest.approx(2000.0)
    assert sum(receipt.seconds_by_part.values()) <= receipt.bill.billed_seconds + 0.1
    assert any("that an earlier attempt spent without saving are billed too" in e.text for e in receipt.events)


def test_a_run_that_always_dies_comes_to_the_end_of_its_budget(tmp_path: Path, monkeypatch) -> None:
    plan = plan_of(tmp_path)
    budget = plan.recipe.budget.model_copy(update={"hours": 2500 / 3600})
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"budget": budget})})
    for _ in range(2):
        killed(plan, monkeypatch, 0, 1000.0)
    with pytest.raises(BudgetReached, match="at step 0 of 10"):
        train(plan, age_seconds=1000.0)


def test_without_the_tally_it_would_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a state alone does not know what came after it."""
    plan = plan_of(tmp_path)
    killed(plan, monkeypatch, 0, 1000.0)
    (tmp_path / "run" / NAME).unlink()
    assert train(plan).bill.billed_seconds < 1000


def test_a_tally_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(tally_module, "time", clock)
    now = 100.0
    tally = Tally(tmp_path)
    assert tally.read() == Spent()
    for spent in (Spent(12.5, {"train": 12.0}), Spent(3.0, {})):
        tally.note(spent, now=True)
        assert Tally(tmp_path).read() == spent
    now += 0.49
    tally.note(Spent(99.0, {}))
    assert tally.read() == Spent(3.0, {}), "not twice in half a second"
    now += 0.02
    tally.note(Spent(99.0, {}))
    assert tally.read() == Spent(99.0, {})
    tally = Tally(tmp_path / "not there")
    tally.note(Spent(1.0, {}))
    assert tally.read() == Spent()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        "[" * 100_000,
        '{"wall_seconds": 1}',
        '{"wall_seconds": -1, "seconds_by_part": {}}',
        '{"wall_seconds": NaN, "seconds_by_part": {}}',
        '{"wall_seconds": true, "seconds_by_part": {}}',
        '{"wall_seconds": 1, "seconds_by_part": {"train": "2"}}',
        '{"wall_seconds": 1, "seconds_by_part": []}',
    ],
)
def test_a_tally_that_cannot_be_read_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(content)
    assert Tally(tmp_path).read() == Spent()
    Tally(tmp_path).note(Spent(1.0, {}), now=True)
    assert Tally(tmp_path).read() == Spent(1.0, {}), "and is written anew"


@pytest.mark.parametrize("jump", [timedelta(days=-1), timedelta(days=366)])
def test_a_clock_that_jumps_changes_no_bill(jump: timedelta, tmp_path: Path, monkeypatch) -> None:
    """Each reading of the date is a day earlier, or a year later, than the one before."""
    readings = 0

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            nonlocal readings
            readings += 1
            return datetime.now(tz) + readings * jump

    for module in (train_module, account_module, run_module):
        monkeypatch.setattr(module, "datetime", Jumping)
    receipt = tenfold.train(plan_of(tmp_path))
    assert readings >= 2
    assert 0 < receipt.bill.billed_seconds < A_DAY_SECONDS
    assert receipt.measured("train_seconds") < A_DAY_SECONDS
    with open_ledger() as ledger:
        assert ledger.verify() == []
        assert 0 < ledger.rows()[-1].row.seconds < A_DAY_SECONDS


def test_durations_come_from_clocks_that_do_not_jump() -> None:
    """`time.time` and `datetime` serve for dates alone: the wall clock is read nowhere to be subtracted."""
    read = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "datetime.utcnow", "time.time_ns")
    ]
    assert read == []
    subtracted = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and "datetime.now" in ast.unparse(node)
    ]
    assert subtracted == []
