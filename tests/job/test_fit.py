"""Rates come back from observations that were made with them; where nothing is observed, nothing moves."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tenfold.job import Work, work_seconds
from tenfold.job.fit import Observation, fit_efficiency, fit_rates
from tenfold.machine import RATES, Machine, gpu_named

UNITS: dict[str, float] = {
    "products": 5e14, "attention": 3e13, "streamed_bytes": 3e11, "touched_bytes": 4e10, "launches": 2e4,
    "micro_batches": 8.0, "steps": 4.0, "tokens": 6e4,
}  # fmt: skip


def h200(**rates: Any) -> Machine:
    machine = gpu_named("H200 SXM")
    return replace(machine, efficiency=replace(machine.efficiency, **rates))


def works(count: int = 40, seed: int = 0) -> list[Work]:
    """Mixtures in which each kind of work weighs more at times."""
    draw = Random(seed)
    return [Work(**{name: unit * 10 ** draw.uniform(-1.5, 0.5) for name, unit in UNITS.items()}) for _ in range(count)]


def test_rates_come_back_from_what_they_made() -> None:
    known = h200()
    true = h200(products=0.6, touches=5.0, bandwidth=0.7, launch_seconds=1.2e-5)
    seen = [Observation(work, work_seconds(work, true)) for work in works()]
    found = replace(known, efficiency=fit_efficiency(known, seen, prior_width=1.0))
    unseen = works(30, seed=1)
    errors = [abs(work_seconds(work, found) / work_seconds(work, true) - 1) for work in unseen]
    before = [abs(work_seconds(work, known) / work_seconds(work, true) - 1) for work in unseen]
    assert max(errors) < 0.02
    assert max(before) > 0.2, "the control: what was known before was far off"


def test_without_observations_nothing_moves() -> None:
    known = h200()
    found = fit_efficiency(known, [])
    assert [getattr(found, name) for name in RATES] == pytest.approx(
        [getattr(known.efficiency, name) for name in RATES]
    )


def test_what_was_not_observed_stays_near_what_was_known() -> None:
    known = h200()
    work = Work(products=1e15)
    found = fit_efficiency(known, [Observation(work, 2 * work_seconds(work, known))])
    assert found.products < 0.7 * known.efficiency.products
    assert found.launch_seconds == pytest.approx(known.efficiency.launch_seconds, rel=1e-3)


def test_an_observation_of_less_weight_moves_less() -> None:
    known = h200()
    work = Work(products=1e15)
    strong, weak = (
        fit_efficiency(known, [Observation(work, 2 * work_seconds(work, known), weight)]).products
        for weight in (1.0, 0.01)
    )
    assert strong < weak < known.efficiency.products


def test_rates_stay_positive() -> None:
    found = fit_rates({"a": 1.0, "b": 2.0}, lambda rates: [rates["a"] - 1e-3, rates["b"] - 50.0], {"a": 3.0, "b": 3.0})
    assert 0 < found["a"] < 0.5
    assert found["b"] > 10
