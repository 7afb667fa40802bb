"""Seconds by part, of a run that is still going on too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tenfold.run import meter as module
from tenfold.run.meter import Meter


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_a_part_within_another_counts_for_itself(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"), 3600.0, age_seconds=5.0)
    clock.now += 1
    with meter.part("train"):
        clock.now += 10
        with meter.part("evaluate"):
            clock.now += 3
        clock.now += 20
    assert meter.seconds_by_part == {"import": 5.0, "train": 30.0, "evaluate": 3.0}
    assert meter.wall_seconds == meter.usd == 39.0, "a second was in no part"


def test_a_part_that_has_not_ended_is_counted_so_far(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"), None)
    with pytest.raises(KeyError), meter.part("train"):
        clock.now += 10
        assert meter.seconds_by_part["train"] == 10.0
        with meter.part("checkpoint"):
            clock.now += 2
            assert meter.seconds_by_part == {"import": 0.0, "train": 10.0, "checkpoint": 2.0}
        raise KeyError
    clock.now += 50
    assert meter.seconds_by_part["train"] == 10.0


def test_earlier_attempts_are_added(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"), None)
    meter.add_earlier(30.0, {"train": 25.0, "load": 5.0})
    with meter.part("train"):
        clock.now += 10
    assert meter.wall_seconds == 40.0
    assert meter.seconds_by_part == {"import": 0.0, "train": 35.0, "load": 5.0}
