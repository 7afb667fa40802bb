"""Every GPU of the catalogue, and every price of it."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from tenfold.errors import InputError
from tenfold.machine.efficiency import efficiency_of, overheads_of
from tenfold.machine.energy import Power, energy_evidence, power_at_the_plug
from tenfold.machine.machine import Machine
from tenfold.machine.prices import Price, prices
from tenfold.machine.table import rows
from tenfold.machine.terms import terms_of


def gpus() -> dict[str, Machine]:
    """Every GPU of the catalogue, without a price."""
    found: dict[str, Machine] = {}
    for row in rows("gpus.csv"):
        rates = {dtype: row[f"{dtype}_tflops"] for dtype in ("bfloat16", "float32", "float8")}
        found[row["gpu"]] = Machine(
            name=row["gpu"],
            vendor_kind="cuda",
            memory_bytes=int(float(row["memory_gib"]) * 2**30),
            flops={dtype: float(rate) * 1e12 for dtype, rate in rates.items() if rate},
            bandwidth_bytes_per_second=float(row["bandwidth_gb_per_second"]) * 1e9,
            compute_capability=float(row["compute_capability"]),
            efficiency=efficiency_of(row["names"], "cuda"),
            overheads=overheads_of(row["names"], "cuda"),
            multiprocessors=int(row["multiprocessors"]),
            device=row["names"],
            power=Power(
                power_at_the_plug(float(row["tdp_watts"]), rented=True),
                energy_evidence()["grams_co2e_per_kwh"]["value"],
                source="the GPU's power limit",
            ),
        )
    return found


def catalogue() -> tuple[Machine, ...]:
    """Every GPU at every price that is known, the user's own prices before the shipped ones."""
    known = gpus()
    return tuple(_at(known[price.gpu], price) for price in prices())


def _at(gpu: Machine, price: Price) -> Machine:
    return replace(
        gpu,
        rent_usd_per_hour=price.usd_per_hour,
        provider=price.provider,
        tier=price.tier,
        terms=terms_of(price.provider, price.tier),
        price_source=price.source,
        price_date=price.checked_at,
    )


def gpu_named(wanted: str) -> Machine:
    """The GPU of this name, without a price: case and spaces do not matter, nor a variant where there is only one.

    Raises InputError with the nearest names.
    """
    known = gpus()
    names = list(known)
    exact = [name for name in names if _plain(name) == _plain(wanted)]
    starting = exact or [name for name in names if _plain(name).startswith(_plain(wanted))]
    if len(starting) == 1:
        return known[starting[0]]
    close = starting or difflib.get_close_matches(wanted, [*names, "local", "auto"], 1, 0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: local, auto, {', '.join(names)}"
    raise InputError(f"machine.name: found {wanted!r}, which the catalogue does not know; {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|nvidia", "", name.lower())
