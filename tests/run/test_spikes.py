"""What counts as a spike of the loss, and what does not."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from tenfold.run.spikes import LEAST, WINDOW, spike_factor


def losses(count: int, level: float = 2.0, spread: float = 0.1, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [level * math.exp(draw.gauss(0, spread)) for _ in range(count)]


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("level", [0.05, 2.0])
def test_a_hundred_times_the_loss_is_a_spike(spread: float, level: float) -> None:
    factor = spike_factor(100 * level, losses(WINDOW, level, spread))
    assert factor == pytest.approx(100, rel=0.3)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_scatter_alone_is_none(spread: float, seed: int) -> None:
    course = losses(1000, spread=spread, seed=seed)
    assert not [step for step in range(1000) if spike_factor(course[step], course[:step])]


def test_a_course_is_none() -> None:
    """Neither a loss that falls, nor one that rises over hundreds of steps."""
    falling = [6 * math.exp(-step / 50) + 0.2 for step in range(300)]
    for course in (falling, falling[::-1]):
        assert not [step for step in range(300) if spike_factor(course[step], course[:step])]


def test_what_is_learned_by_heart_is_no_level() -> None:
    recent = [1e-6 * number for number in range(1, 65)]
    assert spike_factor(1e-3, recent) is None
    assert spike_factor(0.0, [0.0] * 64) is None
    assert spike_factor(1.0, recent) == pytest.approx(100)


def test_too_few_losses_say_nothing() -> None:
    assert spike_factor(200.0, losses(LEAST - 1)) is None
    assert spike_factor(200.0, losses(LEAST)) is not None


def test_spikes_before_it_do_not_hide_a_spike() -> None:
    """They would from mean and standard deviation, which is the control."""
    recent = [*losses(WINDOW - 20), *[200.0] * 20]
    assert spike_factor(200.0, recent) is not None
    assert statistics.mean(recent) + 6 * statistics.stdev(recent) > 200.0
