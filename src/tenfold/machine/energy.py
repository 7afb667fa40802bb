"""Electricity and what it emits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Power:
    """What a machine draws while it trains, and what a kilowatt-hour costs and emits where it stands."""

    watts: float | None
    """At the plug, its share of host and cooling included; None where nobody knows."""
    grams_co2e_per_kwh: float
    usd_per_kwh: float = 0.0
    """What the user pays beside the price of an hour: 0 for rented machines, whose price includes it."""
    source: str = ""

    @property
    def usd_per_hour(self) -> float:
        """Electricity of an hour."""
        return (self.watts or 0.0) / 1000 * self.usd_per_kwh

    def kwh(self, seconds: float) -> float | None:
        """Energy of so many seconds of training."""
        return None if self.watts is None else self.watts / 1000 * seconds / 3600


@lru_cache(maxsize=1)
def energy_evidence() -> dict[str, Any]:
    """catalogue/energy.json."""
    return json.loads(files("tenfold").joinpath("catalogue", "energy.json").read_text(encoding="utf-8"))


def power_at_the_plug(tdp_watts: float | None, rented: bool) -> float | None:
    """Of one GPU with this limit: its load in training, its share of the host, and of a data centre's cooling."""
    if tdp_watts is None:
        return None
    known = energy_evidence()
    cooling = known["pue"]["value"] if rented else 1.0
    return tdp_watts * (known["load"]["value"] + known["host_share"]["value"]) * cooling
