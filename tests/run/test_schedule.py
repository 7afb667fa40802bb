"""Learning rates and row order are pure functions of the step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tenfold.recipe import TrainWish
from tenfold.run.schedule import Schedule, make_schedule

PLAIN = Schedule(
    rows=10, batch_size=4, total_steps=6, learning_rate=1.0, shape="linear", warmup_steps=2, seed=0, shuffle=True
)


@pytest.mark.parametrize(
    ("shape", "rates"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rates(shape: str, rates: list[float]) -> None:
    schedule = replace(PLAIN, shape=shape)
    assert [schedule.learning_rate_at(step) for step in range(6)] == pytest.approx(rates, abs=1e-6)


def test_every_epoch_sees_every_row_once_in_another_order() -> None:
    epochs = [[row for step in range(3 * e, 3 * e + 3) for row in PLAIN.rows_at(step)] for e in range(2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] == [row for step in range(3) for row in PLAIN.rows_at(step)]


def test_order_follows_the_seed_and_the_wish_to_shuffle() -> None:
    assert list(replace(PLAIN, seed=1).rows_at(0)) != list(PLAIN.rows_at(0))
    assert list(replace(PLAIN, shuffle=False).rows_at(1)) == [4, 5, 6, 7]


def test_epochs_end_where_the_last_rows_are() -> None:
    assert [PLAIN.epoch_ends_after(step) for step in range(6)] == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("wish", "steps", "warmup"),
    [
        (TrainWish(epochs=2, batch_size=4, warmup=0.5), 6, 3),
        (TrainWish(epochs=0.5, batch_size=4, warmup=2), 2, 2),
        (TrainWish(max_steps=7, batch_size=100, warmup=0), 7, 0),
    ],
)
def test_from_a_recipe(wish: TrainWish, steps: int, warmup: int) -> None:
    schedule = make_schedule(wish, rows=10, learning_rate=1e-3)
    assert (schedule.total_steps, schedule.warmup_steps) == (steps, warmup)
