"""One way of running: a combination of cuts on a machine, priced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from tenfold.cuts import Cut
from tenfold.job import Bill, Job, Work

TIE = 1.01
"""Ways within 1 % of the cheapest count as equal, and so do those within 1 % of the fastest."""


@dataclass(frozen=True)
class Counted:
    """A combination of cuts counted for a kind of machine: all that does not depend on which one it is."""

    job: Job
    """On any machine of the kind."""
    cuts: tuple[Cut, ...]
    peak_bytes: float
    training: Work
    evaluation: Work
    checking: Work


@dataclass(frozen=True)
class Way:
    """One combination: cuts on a machine at one of its prices."""

    counted: Counted
    job: Job
    """On that machine."""
    bill: Bill

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Those that are made."""
        return self.counted.cuts

    @property
    def peak_bytes(self) -> float:
        """At the peak of a step."""
        return self.counted.peak_bytes

    @cached_property
    def seconds(self) -> float:
        """From the first billed second to the last."""
        return sum(self.bill.seconds_by_part.values())

    @property
    def usd(self) -> float | None:
        """What is billed; None without a price."""
        return self.bill.usd

    @property
    def cost(self) -> float:
        """Dollars, or seconds where no price is known."""
        return self.seconds if self.bill.usd is None else self.bill.usd

    @property
    def deviations(self) -> int:
        """Cuts, and moments of the optimizer in few bits: how far it is from plain training."""
        return len(self.cuts) + (self.job.optimizer != "adamw")

    def has(self, name: str) -> bool:
        """Whether the cut of this name is made."""
        return any(cut.name == name for cut in self.cuts)

    def on(self, job: Job, bill: Bill) -> Way:
        """The same combination at another price."""
        return replace(self, job=job, bill=bill)
