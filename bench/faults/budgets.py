"""Runs on a simulated clock that end at their budget: how far beyond it.

What decides is the product's own: `Run.after_step`, `evaluate`, `save` and `why_stop`. Simulated are the clock, and how
long each step, each micro-batch of an evaluation and each save takes: erratic, now and then twenty times as long.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch

from tenfold.recipe import TrainWish
from tenfold.recipe.schema import Budget
from tenfold.run import meter as metering
from tenfold.run import run as running
from tenfold.run.schedule import make_schedule
from tenfold.run.stop import StopRequest

USD_PER_HOUR = 3600.0
"""A dollar a second: budgets in dollars and in hours are the same numbers."""


class Clock:
    """Stands for the module `time`: moves when something is said to take time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def budgets(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """Every thousandth simulated run as a row, each one beyond its promise, and in the end the counts."""
    del folder  # nothing is written
    draw = random.Random(seed)
    over = ended = number = 0
    worst = 0.0
    for number in range(1, count + 1):
        if time.monotonic() > until:
            number -= 1
            break
        row = one_run(draw)
        broken = row["over_seconds"] > row["promised_seconds"] + 1e-6
        over += broken
        ended += row["stopped_at_step"] is not None
        worst = max(worst, row["over_seconds"] / row["promised_seconds"])
        if broken or number % 1000 == 1:
            yield row
    yield {"runs": number, "ended_at_budget": ended, "beyond": over, "worst_part_of_promise": round(worst, 4)}
    beyond = 0
    for _ in range(100):
        row = one_run(draw, looks_every=10)
        beyond += row["over_seconds"] > row["promised_seconds"]
    yield {"control": "a run that looks every tenth step", "runs": 100, "beyond": beyond}


@dataclass
class Spans:
    """How long things take in one simulated run, and what they took."""

    clock: Clock
    draw: random.Random
    typical_seconds: dict[str, float]
    longest_seconds: dict[str, float] = field(default_factory=dict[str, float])
    last_seconds: dict[str, float] = field(default_factory=dict[str, float])

    def take(self, what: str) -> float:
        """Let the clock run on: about as long as is typical, one time in fifty twenty times as long."""
        slow = 20 if self.draw.random() < 0.02 else 1
        seconds = self.typical_seconds[what] * self.draw.lognormvariate(0, 0.3) * slow
        self.clock.now += seconds
        self.longest_seconds[what] = max(seconds, self.longest_seconds.get(what, 0.0))
        self.last_seconds[what] = seconds
        return seconds

    def promised_seconds(self) -> float:
        """A step, or a micro-batch of an evaluation, and what was written at the end."""
        work = max(self.longest_seconds.get(what, 0.0) for what in ("step", "batch"))
        return work + sum(self.last_seconds.get(what, 0.0) for what in ("save", "export"))


def one_run(draw: random.Random, *, looks_every: int = 1) -> dict[str, Any]:
    """One simulated run: its seconds beyond the budget, and how many are promised at most."""
    clock = Clock()
    spans = Spans(clock, draw, {what: 10 ** draw.uniform(-2, 1) for what in ("step", "batch", "save", "export")})
    batches = draw.randint(1, 30)

    def evaluation(rig: Any, samples: Any, keep_on: Any, tell: Any) -> Any:
        for _ in range(batches):
            if not keep_on():
                raise running.StoppedError
            spans.take("batch")
        return rig, {"loss": draw.random()}

    limit_seconds = 10 ** draw.uniform(0, 3)
    with (
        patch.object(running, "time", clock),
        patch.object(metering, "time", clock),
        patch.object(running, "Tally", lambda folder: SimpleNamespace(note=lambda spent, now=False: None)),
        patch.object(running, "evaluate_in_memory", evaluation),
        patch.object(running, "save_state", lambda *arguments: spans.take("save")),
        patch.object(running, "save_adapter", lambda *arguments: spans.take("export")),
        patch.object(running, "environment", lambda device: {}),
        patch.object(running.Run, "_check_before_writing", lambda self: None),
    ):
        run = make_run(draw, limit_seconds)
        clock.now += draw.uniform(0.0, 0.2 * limit_seconds)
        for step in range(1, run.schedule.total_steps + 1):
            report: Any = SimpleNamespace(
                step=step, tokens=1, loss_tokens=1, seconds=spans.take("step"), rig=run.rig, loss=1.0,
                learning_rate=0.1, gradient_norm=1.0,
            )  # fmt: skip
            if step % looks_every == 0 and not run.after_step(report):
                break
        stopped = run.ended_because is not None
        return {
            "limit_seconds": round(limit_seconds, 3),
            "stopped_at_step": run.progress.step if stopped else None,
            "over_seconds": max(0.0, run.meter.wall_seconds - limit_seconds) if stopped else 0.0,
            "promised_seconds": spans.promised_seconds(),
        }


def make_run(draw: random.Random, limit_seconds: float) -> running.Run:
    """A run without a model, with the limit in dollars or in hours."""
    wish = TrainWish(
        batch_size=1,
        max_steps=200,
        learning_rate=0.1,
        log_every_steps=1000,
        eval_every_steps=draw.choice((None, 3, 10)),
        save_every_steps=draw.choice((None, 1, 7)),
    )
    budget = Budget(usd=limit_seconds) if draw.random() < 0.5 else Budget(hours=limit_seconds / 3600)
    recipe: Any = SimpleNamespace(train=wish, budget=budget, quality=None)
    rig: Any = SimpleNamespace(device=torch.device("cpu"), adapter=object(), task="sft", trainable=[])
    run = running.Run(
        recipe,
        cast("Any", SimpleNamespace(evaluation=[None], sha256="")),
        rig,
        make_schedule(wish, 40, 0.1),
        metering.Meter(rig.device, USD_PER_HOUR),
        folder=Path(),
        base=cast("Any", SimpleNamespace(hash=SimpleNamespace(sha256=""))),
        stop=StopRequest(),
        observers=(),
    )
    run.optimizer = cast("Any", SimpleNamespace(state_dict=lambda: {"state": {}}))
    return run


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Simulated runs, and those that kept to their promise."""
    counted = next(row for row in rows if "ended_at_budget" in row)
    control = next(row for row in rows if "control" in row)
    return {
        "tried": counted["runs"],
        "held": counted["runs"] - counted["beyond"],
        "ended_at_budget": counted["ended_at_budget"],
        "worst_part_of_promise": counted["worst_part_of_promise"],
        "controls": 1,
        "controls_caught": int(control["beyond"] > 0),
    }
