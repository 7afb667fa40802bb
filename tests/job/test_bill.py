"""From seconds to dollars: what is billed, what interruptions cost, what energy is used."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from tenfold.job.bill import bill, expected_seconds, saving_interval
from tenfold.machine import Machine, Power, Terms, catalogue

PARTS = {
    "setup": 300.0, "import": 10.0, "tokenise": 5.0, "download": 60.0, "load": 20.0, "compile": 10.0, "train": 3600.0,
    "evaluate": 60.0, "checkpoint": 5.0, "save": 5.0, "idle": 60.0,
}  # fmt: skip
SUM = sum(PARTS.values())


def machine(terms: Terms = Terms(), usd: float | None = 3.6, power: Power | None = None) -> Machine:  # noqa: B008
    return replace(catalogue()[0], terms=terms, rent_usd_per_hour=usd, power=power)


@pytest.mark.parametrize(
    ("unit", "least", "used", "billed"),
    [(1, 0, 100.2, 101), (1, 0, 100.0, 100), (60, 0, 61, 120), (1, 60, 20, 60), (3600, 0, 1, 3600), (60, 60, 120, 120)],
)
def test_time_is_billed_in_whole_units(unit: float, least: float, used: float, billed: float) -> None:
    assert Terms(billing_unit_seconds=unit, minimum_seconds=least).billed_seconds(used) == billed


def test_everything_from_set_up_to_idle_time_is_billed() -> None:
    found = bill(PARTS, machine(), 5.0)
    assert found.billed_seconds == SUM
    assert found.usd == pytest.approx(SUM * 3.6 / 3600)
    assert found.save_every_seconds is None
    assert bill(PARTS, machine(usd=None), 5.0).usd is None


def test_energy_follows_from_watts_and_seconds() -> None:
    power = Power(watts=1000.0, grams_co2e_per_kwh=400.0)
    found = bill(PARTS, machine(power=power), 5.0)
    assert found.kwh == pytest.approx(SUM / 3600)
    assert found.grams_co2e == pytest.approx(400 * SUM / 3600)
    assert bill(PARTS, machine(power=replace(power, watts=None)), 5.0).kwh is None


def test_a_machine_of_ones_own_costs_its_electricity() -> None:
    owned = machine(usd=None, power=Power(500.0, 400.0, usd_per_kwh=0.2))
    assert owned.usd_per_hour == pytest.approx(0.1)
    assert bill(PARTS, owned, 5.0).usd == pytest.approx(0.1 * SUM / 3600)


def simulate(work: float, every: float, save: float, restart: float, mean: float, draw: random.Random) -> float:
    """The time of one run with interruptions at random, in any phase; what was saved last is not lost."""
    now = done = 0.0
    lost_at = draw.expovariate(1 / mean)
    starting = 0.0
    while done < work:
        segment = min(every, work - done)
        need = starting + segment + (save if done + segment < work else 0.0)
        if now + need <= lost_at:
            now, done, starting = now + need, done + segment, 0.0
        else:
            now, starting = lost_at, restart
            lost_at = now + draw.expovariate(1 / mean)
    return now


@pytest.mark.parametrize("every", [600.0, 3000.0, 12000.0])
def test_expected_time_is_the_mean_of_simulated_runs(every: float) -> None:
    work, save, restart, mean = 36_000.0, 30.0, 400.0, 10_000.0
    draw = random.Random(0)
    simulated = sum(simulate(work, every, save, restart, mean, draw) for _ in range(3000)) / 3000
    assert expected_seconds(work, every, save, restart, mean) == pytest.approx(simulated, rel=0.01)
    assert expected_seconds(work, every, save, restart, 10 * mean) < 0.95 * simulated, "the control: another machine"


def test_the_interval_is_the_one_that_costs_least() -> None:
    save, mean = 30.0, 20_000.0
    best = saving_interval(save, mean)

    def cost(every: float) -> float:
        return expected_seconds(1e6, every, save, 300.0, mean)

    assert all(cost(best) <= 1.0005 * cost(best * factor) for factor in (0.5, 0.8, 1.25, 2.0))
    assert cost(best * 4) > 1.02 * cost(best)
    assert best == pytest.approx(math.sqrt(2 * save * mean), rel=0.05), "Young's first term"


def test_interruptions_are_part_of_the_bill() -> None:
    spot = machine(Terms(hours_between_interruptions=2.0), usd=1.0)
    calm, found = bill(PARTS, machine(usd=1.0), 5.0), bill(PARTS, spot, 5.0)
    assert found.usd is not None
    assert calm.usd is not None
    assert calm.usd < found.usd < 1.5 * calm.usd
    assert found.save_every_seconds == pytest.approx(saving_interval(5.0, 7200.0))
    assert found.seconds_by_part["interruptions"] > 0
    assert found.seconds_by_part["checkpoint"] > PARTS["checkpoint"]
    rare = bill(PARTS, machine(Terms(hours_between_interruptions=1e6), usd=1.0), 5.0)
    assert rare.usd == pytest.approx(calm.usd, rel=1e-3)
    assert rare.save_every_seconds == PARTS["train"] + PARTS["evaluate"], "no state is worth saving before the end"
