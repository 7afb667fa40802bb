"""One way of running: a combination of cuts on a machine, priced."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.cuts import Cut
from tenfold.job import Job

TIE = 1.01
"""Ways within 1 % of the cheapest count as equal, and so do those within 1 % of the fastest."""


@dataclass(frozen=True)
class Way:
    """One combination: cuts on a machine, priced."""

    job: Job
    cuts: tuple[Cut, ...]
    peak_bytes: float
    seconds: float
    usd: float | None

    @property
    def cost(self) -> float:
        """Dollars, or seconds where no price is known."""
        return self.seconds if self.usd is None else self.usd

    def has(self, name: str) -> bool:
        """Whether the cut of this name is made."""
        return any(cut.name == name for cut in self.cuts)
