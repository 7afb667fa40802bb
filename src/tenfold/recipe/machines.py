"""Which computers a recipe allows, and what they cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tenfold.recipe.values import LEAST_USD, Text, Texts, Wish

Tier = Literal["on_demand", "spot", "community", "owned"]


class ElectricityWish(Wish):
    """What a kilowatt-hour costs and emits, and what the machine draws."""

    usd_per_kwh: float = Field(
        default=0.0, strict=True, ge=0, le=100, description="Price of your own machines' electricity.", examples=[0.15]
    )
    watts: float | None = Field(
        default=None, strict=True, gt=0, le=1e5, description="What it draws in training; null is by its power limit."
    )
    grams_co2e_per_kwh: float | None = Field(
        default=None, strict=True, ge=0, le=5000, description="Emissions of the grid; null is the world's average."
    )


class MachineWish(Wish):
    """Which computers may be used."""

    name: Text | Texts = Field(
        default="local",
        description="local (this computer), auto (any of the catalogue), a name of the catalogue, or a list of names.",
    )
    usd_per_hour: float | None = Field(
        default=None,
        strict=True,
        ge=LEAST_USD,
        le=1e6,
        description="Your own price, instead of the catalogue's.",
        examples=[2.5],
    )
    provider: Text | None = Field(default=None, description="Only machines of this provider.")
    tier: Tier = Field(
        default="on_demand", description="Kind of price; spot machines can be taken away, owned ones are yours."
    )
    hours_between_interruptions: float | None = Field(
        default=None,
        strict=True,
        gt=0,
        le=87_600,
        description="Mean time until a spot machine is taken away; null is the catalogue's.",
    )
    stale_prices: Literal["say", "refuse"] = Field(
        default="say", description="What to do about prices that are undated or older than 60 days."
    )
    electricity: ElectricityWish | None = Field(default=None, description="What electricity costs and emits.")

    @property
    def names(self) -> tuple[str, ...]:
        """`name` as a list."""
        return (self.name,) if isinstance(self.name, str) else self.name
