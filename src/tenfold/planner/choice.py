"""Which way to take, and which trade dollars for hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.planner.way import TIE, Way
from tenfold.recipe import Budget


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what."""

    best: Way
    affordable: Sequence[Way]
    """All that meet the budget and the deadline."""
    fitting: Sequence[Way]
    """All that fit in memory."""
    rejected: Counter[str]
    """How many did not, or are not affordable, by reason."""


def within(budget: Budget, way: Way) -> bool:
    """Whether a way meets the budget in dollars and the deadline."""
    in_time = budget.hours is None or way.seconds <= budget.hours * 3600
    return in_time and (budget.usd is None or (way.usd is not None and way.usd <= budget.usd))


def best(ways: Sequence[Way]) -> Way:
    """The cheapest; among equals the one with fewest cuts, then the fastest, then the one that needs least memory."""
    cheapest = min(way.cost for way in ways)
    equals = [way for way in ways if way.cost <= TIE * cheapest]
    fewest = min(way.deviations for way in equals)
    equals = [way for way in equals if way.deviations == fewest]
    fastest = min(way.seconds for way in equals)
    return min((way for way in equals if way.seconds <= TIE * fastest), key=lambda way: (way.peak_bytes, way.cost))


def pareto_front(ways: Sequence[Way]) -> tuple[Way, ...]:
    """Those that no other beats in both dollars and hours, cheapest first; no two within 1 % of each other in hours."""
    front: list[Way] = []
    for way in sorted(ways, key=lambda way: (way.cost, way.seconds)):
        if not front or way.seconds * TIE < front[-1].seconds:
            front.append(way)
    return tuple(front)


def cheapest_by_machine(ways: Sequence[Way]) -> dict[str, Way]:
    """The best way on each hardware, whatever its price."""
    found: dict[str, Way] = {}
    for way in ways:
        name = way.job.machine.name
        if name not in found or way.cost < found[name].cost:
            found[name] = way
    return found
