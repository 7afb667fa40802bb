"""The loop waits for its device once a step, and by then the next step is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from rigs import make_rig, make_rows
from tenfold.data.tokenize import Sample
from tenfold.recipe import TrainWish
from tenfold.rig.batch import Batch
from tenfold.run.loop import StepReport, train_steps
from tenfold.run.optimizer import make_optimizer
from tenfold.run.schedule import make_schedule

STEPS = 3


def events_of(monkeypatch: pytest.MonkeyPatch, stop_after: int = STEPS) -> list[str]:
    """What a short run does, in its order: it lays a step out, computes a pass, reads a number from its device."""
    events: list[str] = []
    rows = make_rows("sft", count=8)
    rig = make_rig("llama", "sft")
    lay_out, backpropagate = rig.layout, rig.backpropagate

    def layout(samples: Sequence[Sample]) -> list[Batch]:
        events.append("lay out")
        return lay_out(samples)

    def backward(*arguments):
        events.append("compute")
        return backpropagate(*arguments)

    def counted(name: str):
        method = getattr(torch.Tensor, name)

        def call(tensor: torch.Tensor, *arguments):
            if tensor.is_floating_point():  # token ids are read where they are made, on the host
                events.append("read")
            return method(tensor, *arguments)

        return call

    wish = TrainWish(batch_size=8, max_steps=STEPS, learning_rate=1e-3)
    optimizer = make_optimizer(rig, wish)
    for name in ("tolist", "item", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))

    def after_step(report: StepReport) -> bool:
        events.append("report")
        return report.step < stop_after

    train_steps(
        replace(rig, layout=layout, backpropagate=backward), rows, make_schedule(wish, len(rows), 1e-3), optimizer,
        first_step=0, max_gradient_norm=1.0, admit=lambda *step: True, after_step=after_step, tell=events.append,
    )  # fmt: skip
    return events


def test_one_number_is_read_a_step_after_the_next_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = ["compute"] * 2  # micro-batches of four rows each
    later = ["lay out", *passes, "lay out", "read", "report", *passes, "lay out", "read", "report"]
    assert events_of(monkeypatch) == [*later, *passes, "read", "report"]


def test_a_run_that_stops_reports_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events_of(monkeypatch, stop_after=1).count("report") == 1
