"""What is shown while a run goes on: a line on a terminal, lines in a file, JSON for programs, numbers for trackers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tenfold.run.events import Event
from tenfold.run.progress import LiveLine, PlainLines, json_lines, step_line
from tenfold.run.trackers import make_tracker


def step(number: int, total: int = 480) -> Event:
    return Event(
        "step",
        {
            "step": number,
            "total_steps": total,
            "loss": 0.412,
            "tokens_per_second": 8214.0,
            "usd": 0.0012,
            "eta_seconds": 80.0,
        },
    )


def test_a_step_is_one_line_with_dollars_and_the_time_that_is_left() -> None:
    assert step_line(step(120)) == "step 120/480   25 %  loss 0.4120  8,214 tokens/s  $0.0012  ETA 1:20"
    free = Event("step", {**step(480).values, "usd": None, "eta_seconds": 3725.0})
    assert step_line(free) == "step 480/480  100 %  loss 0.4120  8,214 tokens/s  $-  ETA 1:02:05"


def test_a_file_gets_the_first_and_the_last_step_and_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    show = PlainLines()
    for event in (step(1), step(2), Event("note", {"text": "out of memory"}), step(480)):
        show(event)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 1/480", "out of memory", "step 480/480"]


def test_programs_get_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    json_lines(step(2))
    assert json.loads(capsys.readouterr().err) == {"event": "step", **step(2).values}


def test_the_live_line_gives_the_cursor_back(capsys: pytest.CaptureFixture[str]) -> None:
    show = LiveLine()
    show(step(1))
    assert show._live.is_started
    show(Event("note", {"text": "evaluated"}))
    show(Event("finished", {"text": "done"}))
    assert not show._live.is_started
    assert "evaluated" in capsys.readouterr().err


class Recorded(ModuleType):
    """Stands for a tracker's package: notes what is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> Recorded:
        self.calls.append(("init", settings))
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append(("log", (numbers, step)))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def start_run(self, run_name: str) -> None:
        self.calls.append(("init", run_name))

    def log_params(self, settings: dict[str, str]) -> None:
        self.calls.append(("params", settings))

    log_metrics = log
    end_run = finish


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_trackers_are_told_numbers_and_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Recorded(name)
    monkeypatch.setitem(sys.modules, name, package)
    observe = make_tracker(name, "mine", tmp_path, {"epochs": 3})
    for event in (
        step(5),
        Event("evaluated", {"step": 5, "loss": 0.5}),
        Event("note", {"text": "x"}),
        Event("finished", {}),
    ):
        observe(event)
    logged = [values for kind, values in package.calls if kind == "log"]
    assert logged == [
        ({"train/loss": 0.412, "train/tokens_per_second": 8214.0, "cost/usd": 0.0012}, 5),
        ({"eval/loss": 0.5}, 5),
    ]
    assert [kind for kind, _ in package.calls][-1] == "finish"
    assert package.calls[0][0] == "init"
