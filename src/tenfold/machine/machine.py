"""A computer on paper: what it can do, what is known of its speed, and its dated price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from tenfold.errors import InputError
from tenfold.machine.efficiency import Efficiency, Overheads
from tenfold.machine.energy import Power
from tenfold.machine.terms import PLAIN, Terms

STALE_DAYS = 60
"""Prices older than this are said to be stale: between August and November 2026 RunPod's H100 went from 3.29 to 3.99
dollars in steps of about a month (catalogue/prices.csv and the readings it cites)."""

MEMORY_MARGIN = 0.06
"""Share of memory that the planner leaves free by default."""


@dataclass(frozen=True)
class Machine:
    """Specifications and price of one computer, or of one GPU of it."""

    name: str
    vendor_kind: Literal["cpu", "cuda"]
    memory_bytes: int
    """Usable: as reported, or 0.92 of a GPU's label where nobody reported it."""
    flops: Mapping[str, float]
    """Dense peak FLOP/s by dtype."""
    bandwidth_bytes_per_second: float
    compute_capability: float | None
    efficiency: Efficiency
    overheads: Overheads
    multiprocessors: int = 0
    """Of a GPU: products are cut into tiles, one for each at a time."""
    float32_efficiency: Efficiency | None = None
    """Where it differs."""
    device: str = ""
    """The name under which its efficiency is kept: the driver's for a GPU, model and number format for a CPU."""
    power: Power | None = None
    terms: Terms = PLAIN
    memory_margin: float = MEMORY_MARGIN
    """Share of memory left free, for what no formula sees; more where finished runs held more than was foretold."""
    here: bool = False
    """It is the computer that this runs on: nothing is to be downloaded or set up."""
    rent_usd_per_hour: float | None = None
    """Without electricity."""
    provider: str = ""
    tier: str = "on_demand"
    price_source: str = ""
    price_date: date | None = None

    @property
    def usd_per_hour(self) -> float | None:
        """All that an hour costs, the user's own electricity included; None if nobody stated a price."""
        electricity = self.power.usd_per_hour if self.power is not None else 0.0
        if self.rent_usd_per_hour is None:
            return electricity or None
        return self.rent_usd_per_hour + electricity

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What tenfold computes in here: bfloat16 where the hardware multiplies matrices of it, float32 elsewhere.

        On GPUs from compute capability 8.0 on, on CPUs with AMX or AVX512-BF16: where `flops` has a rate for it.
        """
        return "bfloat16" if "bfloat16" in self.flops else "float32"

    def computing_in(self, dtype: Literal["auto", "float32", "bfloat16"]) -> Machine:
        """This machine, held to a number format. Raises InputError where it has no hardware for it."""
        if dtype in ("auto", self.dtype):
            return self
        if dtype == "bfloat16":
            raise InputError(f"train.dtype: {self.label} has no hardware for bfloat16; write auto or float32")
        flops = {"float32": self.flops["float32"]}
        device = self.device.replace("bfloat16", "float32")
        return replace(self, flops=flops, device=device, efficiency=self.float32_efficiency or self.efficiency)

    @property
    def label(self) -> str:
        """Name, provider and kind of price."""
        tier = "" if self.tier == "on_demand" else f" {self.tier}"
        return f"{self.name} ({self.provider}{tier})" if self.provider else self.name

    @property
    def supports_bf16(self) -> bool:
        """Matrix products in bfloat16: where a rate for it is known, which is from compute capability 8.0 on.

        Source: NVIDIA's CUDA C++ Programming Guide, arithmetic instructions by compute capability.
        """
        return "bfloat16" in self.flops

    @property
    def supports_fp8(self) -> bool:
        """Matrix products in fp8 (e4m3, e5m2): compute capability 8.9 (Ada), 9.0 (Hopper) and later; never a CPU.

        Source: torch._scaled_mm refuses anything older; NVIDIA's CUDA C++ Programming Guide, as above.
        """
        return self.vendor_kind == "cuda" and (self.compute_capability or 0) >= 8.9

    def price_doubt(self, today: date) -> str:
        """Why the catalogue's price may no longer hold, as a phrase; empty if it is fresh or the user's own."""
        if self.rent_usd_per_hour is None or not self.provider or self.tier == "owned":
            return ""
        if self.price_source.startswith("the recipe"):
            return ""
        if self.price_date is None:
            return "undated"
        age_days = (today - self.price_date).days
        return f"{age_days} days old" if age_days > STALE_DAYS else ""
