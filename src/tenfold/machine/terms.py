"""What the price of an hour does not say: how time is billed, how long set-up takes, how often a machine goes away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from tenfold.machine.table import rows


@dataclass(frozen=True)
class Terms:
    """The terms of one provider and kind of price."""

    billing_unit_seconds: float = 1.0
    """Time is billed in whole units of this."""
    minimum_seconds: float = 0.0
    """The least that is billed."""
    setup_seconds: float = 0.0
    """From the first billed second until tenfold can start: boot and installation."""
    idle_seconds: float = 0.0
    """From the end of the run until the machine is given back."""
    hours_between_interruptions: float | None = None
    """Mean time until the machine is taken away; None if it is not."""
    source: str = ""

    def billed_seconds(self, seconds: float) -> float:
        """What is billed for so many seconds of use."""
        return max(
            self.minimum_seconds, ceil(round(seconds / self.billing_unit_seconds, 6)) * self.billing_unit_seconds
        )


PLAIN = Terms(source="by the second, nothing beside it")
"""Of a computer that is here."""


@lru_cache(maxsize=1)
def _known() -> dict[tuple[str, str], Terms]:
    """By provider and tier; an empty provider stands for any other."""
    found: dict[tuple[str, str], Terms] = {}
    for row in rows("terms.csv"):
        hours = row["hours_between_interruptions"]
        found[row["provider"], row["tier"]] = Terms(
            billing_unit_seconds=float(row["billing_unit_seconds"]),
            minimum_seconds=float(row["minimum_seconds"]),
            setup_seconds=float(row["setup_seconds"]),
            idle_seconds=float(row["idle_seconds"]),
            hours_between_interruptions=float(hours) if hours else None,
            source=row["source"],
        )
    return found


def terms_of(provider: str, tier: str) -> Terms:
    """The terms of a provider's tier; where they are not known, how that tier is with others."""
    known = _known()
    return known.get((provider, tier)) or known["", tier]


def interrupted_every(terms: Terms, hours: float | None) -> Terms:
    """The same terms with the recipe's own mean time between interruptions, if it names one."""
    return terms if hours is None else replace(terms, hours_between_interruptions=hours)
