"""Which price counts: --price and the recipe, the user's file, the shipped table; and which is stale."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tenfold.errors import InputError
from tenfold.machine import catalogue, find_machines, fresh_prices, gpu_named, user_price_file
from tenfold.recipe import MachineWish
from tenfold.recipe.machines import ElectricityWish

HEAD = "gpu,provider,tier,usd_per_gpu_hour,checked_at,source\n"
TODAY = date(2026, 11, 24)


@pytest.fixture
def own_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's price file, not written yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = user_price_file()
    path.parent.mkdir(parents=True)
    return path


def priced(**wish: Any) -> dict[str, float | None]:
    return {machine.provider: machine.usd_per_hour for machine in find_machines(MachineWish(**wish))}


def test_the_recipe_comes_before_the_users_file_and_that_before_the_shipped_table(own_prices: Path) -> None:
    shipped = priced(name="H200 SXM")
    assert shipped["RunPod"] == 4.59
    own_prices.write_text(HEAD + "H200 SXM,RunPod,on_demand,3.10,2026-11-20,my contract\n")
    assert priced(name="H200 SXM") == {**shipped, "RunPod": 3.10}
    assert priced(name="H200 SXM", usd_per_hour=2.0) == {"": 2.0}
    own = next(machine for machine in catalogue() if machine.price_source == "my contract")
    assert own.price_date == date(2026, 11, 20)


def test_a_users_own_offer_is_added(own_prices: Path) -> None:
    own_prices.write_text("gpu,usd_per_gpu_hour,provider\nL40,0.70,Cellar\n")
    assert priced(name="L40") == {"Cellar": 0.70}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu,price\nL4,1\n", ":1: lacks the column usd_per_gpu_hour"),
        ("gpu,usd_per_gpu_hour,colour\nL4,1,red\n", ":1: unknown column 'colour'"),
        *(
            (HEAD + f"L4,x,on_demand,{found},,\n", f":2: usd_per_gpu_hour: found '{found}', expected dollars above 0")
            for found in ("free", "", "0", "-1", "nan", "inf", "1e7", "€2", "2.49 EUR", "$2")
        ),
        (HEAD + "L4,x,on_demand,700,,\n", ":2: usd_per_gpu_hour: found 700, but L4 is offered at"),
        (HEAD + "L4,x,on_demand,0.0007,,\n", ":2: usd_per_gpu_hour: found 0.0007, but L4 is offered at"),
        (HEAD + "L4,x,on_demand,1,,\nL4,x,weekly,1,,\n", ":3: tier: found 'weekly', expected on_demand, spot"),
        (HEAD + "L4,x,on_demand,1,yesterday,\n", ":2: checked_at: found 'yesterday', expected a day"),
        (HEAD + "Abacus,x,on_demand,1,,\n", ":2: the catalogue knows no GPU 'Abacus'"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, message: str, own_prices: Path) -> None:
    own_prices.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"{own_prices}{message}")) as raised:
        catalogue()
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_text_is_named(own_prices: Path) -> None:
    own_prices.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        catalogue()


@pytest.mark.parametrize(
    ("checked", "provider", "doubt"),
    [
        (date(2026, 11, 1), "RunPod", ""),
        (date(2026, 9, 1), "RunPod", "84 days old"),
        (None, "RunPod", "undated"),
        (None, "", ""),
    ],
)
def test_a_price_says_why_it_may_not_hold(checked: date | None, provider: str, doubt: str) -> None:
    machine = replace(gpu_named("L4"), rent_usd_per_hour=1.0, provider=provider, price_date=checked)
    assert machine.price_doubt(TODAY) == doubt


def test_stale_prices_can_be_refused() -> None:
    old, new = (
        replace(gpu_named("L4"), rent_usd_per_hour=1.0, provider="X", price_date=day)
        for day in (date(2026, 8, 1), date(2026, 11, 1))
    )
    assert fresh_prices((old, new), TODAY) == (new,)
    with pytest.raises(InputError, match=re.escape("115 days old")) as raised:
        fresh_prices((old,), TODAY)
    assert "--price" in str(raised.value)


def test_machines_of_ones_own_cost_electricity_and_rented_ones_do_not() -> None:
    wish = ElectricityWish(usd_per_kwh=0.5, watts=1000.0, grams_co2e_per_kwh=56.0)
    (owned,) = find_machines(MachineWish(name="H100 SXM", tier="owned", electricity=wish))
    assert owned.usd_per_hour == pytest.approx(0.5)
    assert owned.price_source == "electricity at $0.5 a kWh"
    assert owned.terms.setup_seconds == 0
    (both,) = find_machines(MachineWish(name="H100 SXM", tier="owned", usd_per_hour=1.0, electricity=wish))
    assert both.usd_per_hour == pytest.approx(1.5)
    rented = find_machines(MachineWish(name="H100 SXM", provider="RunPod", electricity=wish))
    assert [machine.usd_per_hour for machine in rented] == [3.99]
    assert rented[0].power is not None
    assert rented[0].power.grams_co2e_per_kwh == 56.0


def test_electricity_of_a_cpu_needs_its_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match=re.escape("set machine.electricity.watts")):
        find_machines(MachineWish(electricity=ElectricityWish(usd_per_kwh=0.2)))
    (here,) = find_machines(MachineWish(electricity=ElectricityWish(usd_per_kwh=0.2, watts=100.0)))
    assert here.usd_per_hour == pytest.approx(0.02)


def test_terms_follow_provider_and_tier_and_the_recipe_may_say_otherwise() -> None:
    by_provider = {machine.provider: machine.terms for machine in find_machines(MachineWish(name="H100 SXM"))}
    assert by_provider["RunPod"].billing_unit_seconds == 1
    assert by_provider["Lambda"].billing_unit_seconds == 60
    assert by_provider["Nebius"].source.startswith("guess"), "a provider that nobody described is like others"
    (spot,) = find_machines(MachineWish(name="H100 SXM", tier="spot"))
    assert spot.terms.hours_between_interruptions == 12
    (own,) = find_machines(MachineWish(name="H100 SXM", tier="spot", hours_between_interruptions=3.0))
    assert own.terms.hours_between_interruptions == 3
