"""What one more dollar, or one more hour, would buy."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold.planner.way import Way

WORTH_SAYING = 0.05
"""A trade that changes less than this share of the hours, or of the dollars, is not worth a sentence."""


def what_more_buys(chosen: Way, front: Sequence[Way]) -> tuple[str, ...]:
    """The best trades beside the chosen way: fewer hours for more dollars, and fewer dollars for more hours."""
    if chosen.usd is None:
        return ()
    found: list[str] = []
    faster = [way for way in front if way.usd is not None and way.seconds < (1 - WORTH_SAYING) * chosen.seconds]
    if faster:
        way = max(faster, key=lambda way: _rate(chosen, way))
        dearer, saved = _difference(chosen, way)
        if dearer <= 0:
            found.append(f"{_hours(saved)} less for no more dollars, on {way.job.machine.label}")
        else:
            each = f", {_hours(saved / dearer)} for each dollar" if dearer >= 1 else ""
            found.append(f"{_usd(dearer)} more buy {_hours(saved)} less{each}, on {way.job.machine.label}")
    else:
        found.append("no allowed way is faster by more than 5 %, for any dollars")
    cheaper = [way for way in front if way.usd is not None and way.usd < (1 - WORTH_SAYING) * chosen.usd]
    if cheaper:
        way = min(cheaper, key=lambda way: way.cost)
        dearer, saved = _difference(way, chosen)
        found.append(f"{_hours(saved)} more save {_usd(dearer)}, on {way.job.machine.label}")
    return tuple(found)


def _difference(slow: Way, fast: Way) -> tuple[float, float]:
    """(dollars more, seconds less) of the faster one."""
    return (fast.usd or 0.0) - (slow.usd or 0.0), slow.seconds - fast.seconds


def _rate(slow: Way, fast: Way) -> float:
    dearer, saved = _difference(slow, fast)
    return saved / max(dearer, 1e-9)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _usd(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.01 else f"${amount:,.4f}"
