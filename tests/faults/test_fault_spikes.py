"""A spike of the loss: recorded, stopped behind, or left out, to the bit, through kills too."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_runs import Died, die_at, plan_of, same_weights

import tenfold
from tenfold.errors import LossSpike
from tenfold.ledger import open_ledger
from tenfold.planner import Plan
from tenfold.receipt import Receipt
from tenfold.run import loop
from tenfold.run import run as run_module
from tenfold.run.checkpoint import newest_state

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
STEPS = 70
ONE, FIFTY = range(18, 19), range(18, 68)
"""Steps, counted from 1: as soon as there is a history."""


class Rows(list[Any]):
    """The rows of one step, which know its number."""

    step = 0


def with_steps(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    """Let `change(accumulate, step, rig, rows, batches, tell)` compute the gradients of each step."""
    lay_out, accumulate = loop._lay_out, loop.accumulate

    def numbered(rig, samples, schedule, step):
        found, batches = lay_out(rig, samples, schedule, step)
        rows = Rows(found)
        rows.step = step + 1
        return rows, batches

    monkeypatch.setattr(loop, "_lay_out", numbered)
    monkeypatch.setattr(loop, "accumulate", lambda rig, rows, *rest: change(accumulate, rows.step, rig, rows, *rest))


def spiking(monkeypatch: pytest.MonkeyPatch, steps: Collection[int]) -> None:
    """In `steps` the loss is a hundred times what it is, and the gradient leads the other way."""

    def scaled(accumulate, step, rig, rows, *rest):
        rig, batches, loss_sum = accumulate(rig, rows, *rest)
        if step in steps:
            loss_sum = loss_sum * 100
            for _, weight in rig.trainable:
                weight.grad *= -100
        return rig, batches, loss_sum

    with_steps(monkeypatch, scaled)


def without(monkeypatch: pytest.MonkeyPatch, steps: Collection[int], *, computed: bool) -> None:
    """The reference: no update in `steps`, whose rows are not even seen unless `computed`."""
    update, now = torch.optim.AdamW.step, [0]

    def passed_over(accumulate, step, rig, rows, batches, tell):
        now[0] = step
        if step in steps and not computed:
            return rig, batches, torch.zeros(())
        return accumulate(rig, rows, batches, tell)

    with_steps(monkeypatch, passed_over)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None if now[0] in steps else update(self))


def seventy_steps(folder: Path, name: str, on_loss_spike: str, dropout: float = 0.1, saves: int | None = None) -> Plan:
    """`saves`: steps between checkpoints, which take longer than the steps."""
    train = {"max_steps": STEPS, "epochs": None, "eval_every_steps": STEPS, "batch_size": 4}
    answer = {"on_loss_spike": on_loss_spike, "save_every_steps": saves}
    return plan_of(folder, name, train={**train, **answer}, cuts={"lora": {"rank": 2, "dropout": dropout}})


def spikes_of(receipt: Receipt) -> list[int]:
    """The steps whose spikes a receipt names."""
    texts = [event.text for event in receipt.events if event.kind == "loss_spike"]
    return [int(text.split(":")[0].removeprefix("step ")) for text in texts]


def train(monkeypatch: pytest.MonkeyPatch, plan: Plan, change: Callable[..., None], *arguments: Any, **named: Any):
    with monkeypatch.context() as patch:
        change(patch, *arguments, **named)
        return tenfold.train(plan)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all runs here, so that several tests may look at one."""
    return tmp_path_factory.mktemp("spikes")


def skipped(monkeypatch: pytest.MonkeyPatch, folder: Path, steps: range, dropout: float = 0.1) -> tuple[str, Receipt]:
    """The name and receipt of a run that leaves a spike of so many steps out, made once."""
    name = f"skipped-{len(steps)}-{dropout}"
    if not (folder / name).exists():
        train(monkeypatch, seventy_steps(folder, name, "skip", dropout), spiking, steps)
    return name, Receipt.read(folder / name / "receipt.json")


@pytest.mark.parametrize(
    ("steps", "computed", "dropout"), [(ONE, True, 0.1), (FIFTY, False, 0.0)], ids=["computed in vain", "never seen"]
)
def test_skip_is_a_run_without_those_updates(steps, computed, dropout, folder: Path, monkeypatch) -> None:
    """Dropout where the reference draws as many random numbers."""
    reference = seventy_steps(folder, f"reference-{dropout}", "record", dropout)
    train(monkeypatch, reference, without, steps, computed=computed)
    name, receipt = skipped(monkeypatch, folder, steps, dropout)
    assert same_weights(folder, f"reference-{dropout}", name)
    assert spikes_of(receipt) == [*steps]
    assert all("its update is left out. Rows: train.jsonl:" in e.text for e in receipt.events if e.kind == "loss_spike")
    shown = {point.step: point.loss for point in receipt.curve if point.loss is not None}
    assert shown[18] > 50 * shown[17], "the curve shows it"
    assert (receipt.status, receipt.measured("steps")) == ("done", STEPS)
    with open_ledger() as ledger:
        assert {entry.row.status for entry in ledger.rows()} == {"done"}
        assert ledger.verify() == []


def test_record_changes_nothing_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run that does not look for spikes; and the control: its weights are not those of one that leaves it out."""
    receipt = train(monkeypatch, seventy_steps(folder, "recorded", "record"), spiking, ONE)
    assert spikes_of(receipt) == [18]
    assert "times the median before it; learned from. Rows: train.jsonl:" in receipt.events[0].text
    assert not same_weights(folder, "recorded", skipped(monkeypatch, folder, ONE)[0])
    monkeypatch.setattr(run_module, "spike_factor", lambda loss, recent: None)
    assert spikes_of(train(monkeypatch, seventy_steps(folder, "unseen", "skip"), spiking, ONE)) == []
    assert same_weights(folder, "recorded", "unseen")


def test_a_run_without_a_spike_is_the_same_whatever_is_said(folder: Path) -> None:
    for name in ("record", "skip"):
        assert spikes_of(tenfold.train(seventy_steps(folder, f"plain-{name}", name))) == []
    assert same_weights(folder, "plain-record", "plain-skip")


@pytest.mark.parametrize("saves", [1, 2], ids=["before the spike", "in it"])
def test_killed_and_continued(saves: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = killed(folder, f"killed-{saves}", saves, monkeypatch)
    name, whole = skipped(monkeypatch, folder, FIFTY)
    parts = train(monkeypatch, plan, spiking, FIFTY)
    assert same_weights(folder, name, f"killed-{saves}")
    assert spikes_of(parts) == spikes_of(whole) == [*FIFTY]


def test_a_history_that_is_lost_would_end_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: without the losses of the saved state the spike is not seen."""
    plan = killed(folder, "forgetful", 2, monkeypatch)
    restore = run_module.Run.restore

    def forgetful(self, saved):
        restore(self, saved)
        self.progress.recent_losses = []

    monkeypatch.setattr(run_module.Run, "restore", forgetful)
    train(monkeypatch, plan, spiking, FIFTY)
    assert not same_weights(folder, skipped(monkeypatch, folder, FIFTY)[0], "forgetful")


def killed(folder: Path, name: str, saves: int, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of a run that was killed after so many checkpoints, one every tenth step."""
    plan = seventy_steps(folder, name, "skip", saves=10)
    with monkeypatch.context() as patch:
        die_at(patch, run_module, "save_state", saves + 1)
        with pytest.raises(Died):
            train(patch, plan, spiking, FIFTY)
    saved = newest_state(folder / name / "checkpoints")
    assert saved is not None
    assert saved.step == 10 * saves
    return plan


def test_stop_saves_and_goes_on_behind_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = seventy_steps(folder, "stopped", "stop")
    said = r"step 18: loss .*; its update is left out\. Rows: train\.jsonl:.*Stopped behind it at step 18 of 70, checkp"
    with pytest.raises(LossSpike, match=said) as caught:
        train(monkeypatch, plan, spiking, ONE)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert Receipt.read(folder / "stopped" / "receipt.json").status == "failed"
    receipt = train(monkeypatch, plan, spiking, ONE)
    assert (receipt.status, spikes_of(receipt)) == ("done", [18])
    assert same_weights(folder, skipped(monkeypatch, folder, ONE)[0], "stopped")


def test_another_answer_may_be_given_when_a_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has looked at the rows need not be stopped fifty times."""
    with pytest.raises(LossSpike):
        train(monkeypatch, seventy_steps(folder, "answered", "stop"), spiking, FIFTY)
    assert train(monkeypatch, seventy_steps(folder, "answered", "skip"), spiking, FIFTY).status == "done"
    assert same_weights(folder, skipped(monkeypatch, folder, FIFTY)[0], "answered")


def test_a_spike_without_an_end_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the model that has changed, not its rows."""
    monkeypatch.setattr(run_module, "WINDOW", 30)
    with pytest.raises(LossSpike, match=r"^step 47: .*Stopped behind it at step 47 of 70"):
        train(monkeypatch, seventy_steps(tmp_path, "run", "skip"), spiking, FIFTY)
