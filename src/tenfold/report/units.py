"""Numbers as people read them: three significant digits, a unit, and never more precision than was measured."""

from __future__ import annotations

from tenfold.receipt import Baseline, Unit

UNKNOWN = "not known"

TIMES = "\u00d7"
"""The multiplication sign, for pages; terminals get the letter x."""


def bytes_text(amount: float) -> str:
    """Binary units, as memory is sold: 1.42 GiB."""
    value, unit = amount, "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} B" if unit == "B" else f"{_three_digits(value)} {unit}"


def seconds_text(seconds: float) -> str:
    """The two largest parts of a duration: 42.3 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def usd_text(usd: float, decimals: int | None = None) -> str:
    """Dollars with `decimals`, or as many as `usd_decimals` finds fit: $12.40, $0.042."""
    places = usd_decimals(usd, 2) if decimals is None else decimals
    return f"${usd:,.{places}f}"


def usd_decimals(usd: float, digits: int) -> int:
    """Cents from a dollar up; below, as many decimals as show `digits` significant ones."""
    decimals = 2
    while usd > 0 and decimals < 8 and round(usd, decimals) < 10.0 ** (digits - 1 - decimals):
        decimals += 1
    return decimals if usd < 0.995 else 2


def rate_text(usd: float) -> str:
    """A price as it was stated, with cents at least: $0.384, $2.50."""
    text = f"{usd:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"${int(whole):,}.{part:<02}".replace(" ", "0")


def count_text(count: float) -> str:
    """A whole number with thousands separated."""
    return f"{count:,.0f}"


def times_text(ratio: float, sign: str = "x") -> str:
    """A ratio: 12.5x."""
    return f"{_three_digits(ratio)}{sign}"


def percent_text(share: float, signed: bool = False) -> str:
    """A share of one as a percentage: 12 %, +3.4 %."""
    value = share * 100
    if abs(value) < 0.05:
        return "0 %"
    digits = 0 if abs(value) >= 9.95 else 1
    return f"{value:+,.{digits}f} %" if signed else f"{value:,.{digits}f} %".replace(".0 %", " %")


def amount_text(amount: float | None, unit: Unit) -> str:
    """An amount in its unit; steps and tokens are bare counts, for their label names them."""
    if amount is None:
        return UNKNOWN
    match unit:
        case "bytes":
            return bytes_text(amount)
        case "seconds":
            return seconds_text(amount)
        case "usd":
            return usd_text(amount)
        case "steps" | "tokens":
            return count_text(amount)


def evidence_text(baseline: Baseline) -> str:
    """How a baseline's figures came about, in the words that stand beside each of them."""
    if baseline.how == "extrapolated":
        return f"extrapolated from {percent_text(baseline.measured_fraction)}"
    return baseline.how


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
