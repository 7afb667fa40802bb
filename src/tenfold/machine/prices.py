"""Dated prices: the shipped ones, and the user's own, which come before them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import get_args

from tenfold.errors import InputError
from tenfold.folders import config_folder
from tenfold.inert import printable
from tenfold.machine.table import rows
from tenfold.recipe import Tier
from tenfold.recipe.values import LEAST_USD

TIERS = get_args(Tier)
NEEDED = ("gpu", "usd_per_gpu_hour")
OPTIONAL = ("provider", "region", "tier", "gpu_count", "checked_at", "source")

FARTHEST = 20.0
"""Times the dearest known offer, or one part of the cheapest: no contract is so far off, and a unit mistaken is."""


@dataclass(frozen=True)
class Price:
    """What one GPU costs for an hour, where, since when, and who says so."""

    gpu: str
    provider: str
    tier: str
    usd_per_hour: float
    checked_at: date | None
    source: str


def prices() -> tuple[Price, ...]:
    """Every price of one GPU. A user's row takes the place of the shipped one of the same GPU, provider and tier.

    Not those that are sold several at once: a run uses one GPU, and eighths of an instance of eight cannot be rented.
    Raises InputError naming the line of the user's file that cannot be read.
    """
    own = user_prices(user_price_file())
    replaced = {(price.gpu, price.provider, price.tier) for price in own}
    return (*own, *(price for price in _shipped() if (price.gpu, price.provider, price.tier) not in replaced))


def user_price_file() -> Path:
    """Where a user's own prices stand, in the columns of the shipped table."""
    return config_folder() / "prices.csv"


@lru_cache(maxsize=1)
def _shipped() -> tuple[Price, ...]:
    return tuple(_price(row) for row in rows("prices.csv") if row["gpu_count"] == "1")


def user_prices(path: Path) -> tuple[Price, ...]:
    """The prices of a user's file; none if there is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text; it needs the columns {', '.join(NEEDED)}") from error
    table = csv.DictReader(lines)
    named = table.fieldnames or ()
    if missing := [name for name in NEEDED if name not in named]:
        raise InputError(f"{path}:1: lacks the column {missing[0]}; the columns are {', '.join((*NEEDED, *OPTIONAL))}")
    if unknown := [name for name in named if name not in (*NEEDED, *OPTIONAL)]:
        raise InputError(
            f"{path}:1: unknown column {printable(unknown[0])!r}; the columns are {', '.join((*NEEDED, *OPTIONAL))}"
        )
    gpus = {row["gpu"] for row in rows("gpus.csv")}
    found: list[Price] = []
    for row in table:
        try:
            price = _price({key: value or "" for key, value in row.items() if key})
        except ValueError as error:
            raise InputError(f"{path}:{table.line_num}: {error}") from None
        if price.gpu not in gpus:
            raise InputError(
                f"{path}:{table.line_num}: the catalogue knows no GPU {printable(price.gpu)!r}; known:"
                f" {', '.join(sorted(gpus))}"
            )
        _check_magnitude(price, f"{path}:{table.line_num}")
        if row.get("gpu_count") in (None, "", "1"):
            found.append(price)
    return tuple(found)


def _check_magnitude(price: Price, where: str) -> None:
    """Cents, or a month's rent, would make every plan wrong. Raises InputError."""
    known = [one.usd_per_hour for one in _shipped() if one.gpu == price.gpu]
    if known and not min(known) / FARTHEST <= price.usd_per_hour <= max(known) * FARTHEST:
        raise InputError(
            f"{where}: usd_per_gpu_hour: found {price.usd_per_hour:g}, but {price.gpu} is offered at {min(known):g} to"
            f" {max(known):g}; write dollars for one hour"
        )


def _price(row: dict[str, str]) -> Price:
    """A row as a price. Raises ValueError saying which cell is wrong."""
    tier = row.get("tier") or "on_demand"
    if tier not in TIERS:
        raise ValueError(f"tier: found {printable(tier)!r}, expected {', '.join(TIERS)}")
    try:
        usd = float(row["usd_per_gpu_hour"])
    except ValueError:
        usd = -1.0
    if not LEAST_USD <= usd < 1e6:
        found = printable(row["usd_per_gpu_hour"])
        raise ValueError(f"usd_per_gpu_hour: found {found!r}, expected dollars above 0, e.g. 2.49")
    checked = row.get("checked_at", "")
    try:
        checked_at = date.fromisoformat(checked) if checked else None
    except ValueError:
        raise ValueError(f"checked_at: found {printable(checked)!r}, expected a day, e.g. 2026-11-24") from None
    return Price(row["gpu"], row.get("provider", ""), tier, usd, checked_at, row.get("source") or "your prices.csv")
