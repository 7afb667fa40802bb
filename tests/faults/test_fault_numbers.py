"""NaN, Inf and a lack of memory: nothing poisoned is saved, and what fits in less memory is done in less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fault_runs import plan_of, same_weights

import tenfold
from tenfold.errors import NotFinite, OutOfMemory
from tenfold.ledger import open_ledger
from tenfold.receipt import Receipt
from tenfold.rig.backward import eager_backward
from tenfold.run import evaluate as evaluate_module
from tenfold.run import train as train_module
from tenfold.run.checkpoint import newest_state

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")


def with_backward(monkeypatch: pytest.MonkeyPatch, backward) -> None:
    build = train_module._build
    monkeypatch.setattr(train_module, "_build", lambda *arguments: replace(build(*arguments), backpropagate=backward))


@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_before_the_update(where: str, value: float, tmp_path: Path, monkeypatch) -> None:
    """At step seven: the checkpoint of step six is intact, and the run without the fault goes on from it."""
    tenfold.train(plan_of(tmp_path, "whole"))
    plan = plan_of(tmp_path, "parts")
    steps = 0

    def poisoned(model, loss, batch, loss_tokens, dtype):
        nonlocal steps
        steps += 1
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        if steps == 7 and where == "weight":
            learning[0].data.view(-1)[0] = value
        summed = eager_backward(model, loss, batch, loss_tokens, dtype)
        if steps == 7 and where == "gradient":
            learning[0].grad.view(-1)[0] = value
        return summed * value if steps == 7 and where == "loss" else summed

    with monkeypatch.context() as patch:
        with_backward(patch, poisoned)
        with pytest.raises(NotFinite, match=r"step 7: .*stopped before the update\. Rows: .*train\.jsonl:\d+"):
            tenfold.train(plan)
    saved = newest_state(tmp_path / "parts" / "checkpoints")
    assert saved is not None
    assert (saved.step, saved.skipped) == (6, ())
    with open_ledger() as ledger:
        assert [entry.row.status for entry in ledger.rows()] == ["done", "failed"]
    tenfold.train(plan)
    assert same_weights(tmp_path, "whole", "parts")


@pytest.mark.parametrize("last", [6, 10])
def test_weights_that_an_update_spoilt_are_not_saved(last: int, tmp_path: Path, monkeypatch) -> None:
    """The loss was a number; the update itself overflowed. Neither checkpoint nor adapter is written."""
    step = torch.optim.AdamW.step
    steps = 0

    def overflowing(optimizer, *arguments):
        nonlocal steps
        steps += 1
        result = step(optimizer, *arguments)
        if steps == last:
            optimizer.param_groups[0]["params"][0].data.view(-1)[0] = float("inf")
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", overflowing)
    with pytest.raises(NotFinite, match=f"step {last}: its update left NaN or Inf in .*; nothing of it is saved"):
        tenfold.train(plan_of(tmp_path, train={"eval_every_steps": 100}))
    saved = newest_state(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == last - 2
    assert not (tmp_path / "run" / "adapter-last").exists()
    assert Receipt.read(tmp_path / "run" / "receipt.json").status == "failed"


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_no_memory_for_the_smallest_step_is_told(kind: type[Exception], tmp_path: Path, monkeypatch) -> None:
    def fail(*arguments):
        raise kind

    with_backward(monkeypatch, fail)
    with pytest.raises(OutOfMemory, match=r"out of memory on cpu: .*\. Set train\.micro_batch_size"):
        tenfold.train(plan_of(tmp_path))
    assert Receipt.read(tmp_path / "run" / "receipt.json").status == "failed"


def test_an_evaluation_that_runs_out_of_memory_is_done_in_smaller_parts(tmp_path: Path, monkeypatch) -> None:
    cuts = {"pack": False}
    whole = tenfold.train(plan_of(tmp_path, "whole", "classify", "bert", cuts=cuts))
    logits = evaluate_module.class_logits

    def scarce(model, batch):
        if batch.input_ids.shape[0] > 2:
            raise torch.OutOfMemoryError("pretended")
        return logits(model, batch)

    monkeypatch.setattr(evaluate_module, "class_logits", scarce)
    found = tenfold.train(plan_of(tmp_path, "parts", "classify", "bert", cuts=cuts))
    assert any("this evaluation starts again, with" in e.text for e in found.events if e.kind == "smaller_step")
    assert same_weights(tmp_path, "whole", "parts"), "training is as it was"
    for one, other in zip(whole.curve, found.curve, strict=True):
        assert one.step == other.step
        for name, value in (one.metrics or {}).items():
            assert (other.metrics or {})[name] == pytest.approx(value, rel=1e-3), "to the rounding of bfloat16"
