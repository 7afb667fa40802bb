"""The machines that a recipe allows, at the prices and terms that count for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Literal

from tenfold.errors import InputError
from tenfold.machine.catalogue import catalogue, gpu_named
from tenfold.machine.local import local_machine
from tenfold.machine.machine import STALE_DAYS, Machine
from tenfold.machine.prices import user_price_file
from tenfold.machine.terms import interrupted_every, terms_of
from tenfold.recipe import MachineWish


def find_machines(wish: MachineWish, dtype: Literal["auto", "float32", "bfloat16"] = "auto") -> tuple[Machine, ...]:
    """The machines that a recipe allows, at the prices that count, computing in the number format it wishes for.

    Raises InputError if a name is unknown, or if the provider, tier or number format leaves none.
    """
    found = [_with_wishes(machine, wish) for machine in _find_machines(wish)]
    able = [machine for machine in found if dtype != "bfloat16" or machine.dtype == "bfloat16"]
    return tuple(machine.computing_in(dtype) for machine in able or found[:1])


def fresh_prices(machines: tuple[Machine, ...], today: date) -> tuple[Machine, ...]:
    """Those whose price is the user's own or not stale. Raises InputError if none is."""
    fresh = tuple(machine for machine in machines if not machine.price_doubt(today))
    if not fresh:
        first = machines[0]
        raise InputError(
            f"machine: the price of {first.label} is {first.price_doubt(today)}, and every other allowed one is undated"
            f" or over {STALE_DAYS} days old; give --price, machine.usd_per_hour or a row in {user_price_file()}"
        )
    return fresh


def _find_machines(wish: MachineWish) -> list[Machine]:
    found: list[Machine] = []
    for wanted in wish.names:
        if wanted == "local":
            found.append(local_machine(wish.usd_per_hour))
            continue
        gpu = None if wanted == "auto" else gpu_named(wanted)
        if gpu is not None and (wish.usd_per_hour is not None or wish.tier == "owned"):
            found.append(_own_price(gpu, wish))
            continue
        found += [
            machine
            for machine in catalogue()
            if (gpu is None or machine.name == gpu.name)
            and machine.tier == wish.tier
            and wish.provider in (None, machine.provider)
        ]
    if not found:
        raise InputError(
            f"machine: no {wish.tier} price is known for {', '.join(wish.names)}"
            + (f" at {wish.provider}" if wish.provider else "")
            + f"; set machine.usd_per_hour to your own, or put it into {user_price_file()}"
        )
    return found


def _own_price(gpu: Machine, wish: MachineWish) -> Machine:
    provider = wish.provider or ""
    return replace(
        gpu,
        rent_usd_per_hour=wish.usd_per_hour,
        provider=provider,
        tier=wish.tier,
        terms=terms_of(provider, wish.tier),
        price_source="the recipe",
    )


def _with_wishes(machine: Machine, wish: MachineWish) -> Machine:
    """Electricity and interruptions as the recipe states them."""
    terms = interrupted_every(machine.terms, wish.hours_between_interruptions)
    power, stated = machine.power, wish.electricity
    if power is None or stated is None:
        return replace(machine, terms=terms)
    own = machine.here or machine.tier == "owned"
    power = replace(
        power,
        watts=power.watts if stated.watts is None else stated.watts,
        grams_co2e_per_kwh=(
            power.grams_co2e_per_kwh if stated.grams_co2e_per_kwh is None else stated.grams_co2e_per_kwh
        ),
        usd_per_kwh=stated.usd_per_kwh if own else 0.0,
        source="the recipe" if stated.watts is not None else power.source,
    )
    if own and stated.usd_per_kwh and power.watts is None:
        raise InputError(
            f"machine.electricity: nobody knows what {machine.name} draws; set machine.electricity.watts as well"
        )
    source = machine.price_source
    if power.usd_per_kwh:
        bill = f"electricity at ${power.usd_per_kwh:g} a kWh"
        source = f"{source}, {bill}" if machine.rent_usd_per_hour is not None else bill
    return replace(machine, terms=terms, power=power, price_source=source)
