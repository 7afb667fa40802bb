"""What a run keeps when it goes on, what it does not do twice, and what a failed one leaves."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tenfold
from command_line import call
from jobs import make_recipe
from tenfold.errors import BudgetReached, InputError, NotFinite, Preempted
from tenfold.ledger import open_ledger
from tenfold.planner import Plan
from tenfold.receipt import Receipt
from tenfold.run.events import Event

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")


class StopAt:
    """An observer that sends this process a signal at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if event.kind == "step" and event.values["step"] == self.step:
            signal.raise_signal(signal.SIGTERM)


def plan_of(tmp_path: Path, name: str, **sections) -> Plan:
    output = {"folder": str(tmp_path / name)}
    return tenfold.plan(make_recipe(tmp_path, train={"log_every_steps": 1}, output=output, **sections))


def final_weights(tmp_path: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(tmp_path / name / "adapter-last" / "adapter_model.safetensors")


def test_a_run_goes_on_with_the_cuts_that_it_began_with(tmp_path: Path) -> None:
    """Another day's plan may find other micro-batches cheaper: the sums of gradients would be rounded differently."""
    cuts = {"lora": {"rank": 4}, "pack": False}
    tenfold.train(plan_of(tmp_path, "whole", cuts=cuts).model_copy(update={"micro_batch_size": 3}))
    began = plan_of(tmp_path, "parts", cuts=cuts).model_copy(update={"micro_batch_size": 3})
    with pytest.raises(Preempted):
        tenfold.train(began, [StopAt(4)])
    lora = {**next(cut for cut in began.cuts if cut["cut"] == "lora"), "rank": 8}
    other = began.model_copy(update={"micro_batch_size": 8, "cuts": (began.cuts[0], lora)})
    receipt = tenfold.train(other)
    assert receipt.plan["micro_batch_size"] == 3
    expected, found = final_weights(tmp_path, "whole"), final_weights(tmp_path, "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_other_micro_batches_would_end_elsewhere(tmp_path: Path) -> None:
    """The control of the test above."""
    cuts = {"lora": {"rank": 4}, "pack": False}
    for name, rows in (("a", 3), ("b", 8)):
        tenfold.train(plan_of(tmp_path, name, cuts=cuts).model_copy(update={"micro_batch_size": rows}))
    a, b = final_weights(tmp_path, "a"), final_weights(tmp_path, "b")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "run")
    first = tenfold.train(plan)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    told: list[str] = []
    assert tenfold.train(plan, [lambda event: told.append(str(event.values.get("text", "")))]) == first
    assert any("finished before" in text for text in told)
    assert {path: path.read_bytes() for path in files} == files
    with open_ledger() as ledger:
        assert len(ledger.rows()) == 1


def test_more_money_is_the_same_run_in_the_ledger(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "run")
    with pytest.raises(Preempted):
        tenfold.train(plan, [StopAt(3)])
    budget = plan.recipe.budget.model_copy(update={"usd": 99.0})
    tenfold.train(plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"budget": budget})}))
    with open_ledger() as ledger:
        stopped, done = (entry.row for entry in ledger.rows())
    assert stopped.run_id == done.run_id
    assert (stopped.status, done.status) == ("preempted", "done")
    assert (stopped.seconds or 0) < (done.seconds or 0), "the last row stands for all of it"


def test_a_run_without_money_left_does_no_step(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "run")
    with pytest.raises(Preempted):
        tenfold.train(plan, [StopAt(3)])
    budget = plan.recipe.budget.model_copy(update={"hours": 1e-9})
    poor = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"budget": budget})})
    with pytest.raises(BudgetReached, match="at step 3 of 10"):
        tenfold.train(poor)
    assert Receipt.read(tmp_path / "run" / "receipt.json").measured("steps") == 3
    assert tenfold.train(plan).measured("steps") == 10


def test_a_failed_run_leaves_its_receipt_and_its_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, "run")
    path = tmp_path / "base-llama" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    monkeypatch.setattr("tenfold.run.train.check_rig", lambda *_: ())  # which would refuse such a base
    with pytest.raises(NotFinite):
        tenfold.train(plan)
    receipt = Receipt.read(tmp_path / "run" / "receipt.json")
    assert (receipt.status, receipt.measured("steps")) == ("failed", 0)
    with open_ledger() as ledger:
        (entry,) = ledger.rows()
        assert (entry.row.status, ledger.verify()) == ("failed", [])


def test_a_base_that_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "run")
    with pytest.raises(Preempted):
        tenfold.train(plan, [StopAt(3)])
    path = tmp_path / "base-llama" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1.0
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its checkpoint was trained from other weights; name a new output\.folder"):
        tenfold.train(plan)


def test_only_what_the_run_itself_takes_is_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A notebook's idle hours are nobody's run; the command line bills its process from the start."""
    monkeypatch.setattr("tenfold.run.meter.process_age_seconds", lambda: 100_000.0)
    billed = tenfold.train(plan_of(tmp_path, "a")).bill.billed_seconds
    plan_of(tmp_path, "b").write(tmp_path / "plan.json")
    assert call(["train", str(tmp_path / "plan.json")], monkeypatch, capfd).code == 0
    aged = Receipt.read(tmp_path / "b" / "receipt.json")
    assert billed < 50_000
    assert 100_000 <= aged.seconds_by_part["import"] < aged.bill.billed_seconds < 150_000


def test_evaluation_keeps_to_the_micro_batches_that_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfold.rig.backward import eager_backward
    from tenfold.run import train as module

    widest: list[int] = []

    def scarce(model, loss, batch, loss_tokens, dtype):
        if batch.rows > 2:
            raise torch.OutOfMemoryError("pretended")
        return eager_backward(model, loss, batch, loss_tokens, dtype)

    build, evaluate = module._build, module.Run.evaluate

    def watched(run):
        widest.append(run.rig.layout.rows)
        return evaluate(run)

    monkeypatch.setattr(module, "_build", lambda *arguments: replace(build(*arguments), backpropagate=scarce))
    monkeypatch.setattr(module.Run, "evaluate", watched)
    plan = plan_of(tmp_path, "run", cuts={"pack": False}).model_copy(update={"micro_batch_size": 8})
    receipt = tenfold.train(plan)
    assert set(widest) == {2}
    assert [event.text for event in receipt.events if event.kind == "smaller_step"]
