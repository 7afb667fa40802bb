"""What every report shows, as rows of text and numbers: the terminal and the page differ in looks, never in figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from tenfold.compare import (
    find_quality,
    memory_above_idle_ratio,
    memory_ratio,
    mismatches,
    prediction_error,
    quality_difference,
    speedup,
    usd_ratio,
    wall_speedup,
)
from tenfold.receipt import Baseline, Quality, QuantityName, Receipt, Unit
from tenfold.redact import redact
from tenfold.report.units import (
    amount_text,
    count_text,
    evidence_text,
    percent_text,
    rate_text,
    seconds_text,
    usd_decimals,
    usd_text,
)

_LABELS: dict[QuantityName, str] = {
    "train_seconds": "training time",
    "wall_seconds": "wall time",
    "peak_memory_bytes": "peak memory",
    "idle_memory_bytes": "memory before loading",
    "usd": "cost",
    "steps": "steps",
    "tokens": "tokens",
    "loss_tokens": "tokens that bear loss",
}

ABOVE_IDLE = "memory above idle"
"""The label of peak memory less what the process held before it loaded the model."""

Ratio = Callable[[Receipt, Baseline], float | None]

_COMPARED: tuple[tuple[str, QuantityName, Ratio], ...] = (
    ("cost", "usd", usd_ratio),
    ("training time", "train_seconds", speedup),
    ("wall time", "wall_seconds", wall_speedup),
    ("peak memory", "peak_memory_bytes", memory_ratio),
)


@dataclass(frozen=True)
class Other:
    """One quantity of one baseline, and how many times ours goes into it."""

    baseline: Baseline
    amount: float | None
    text: str
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """One quantity: ours, then each baseline's."""

    label: str
    unit: Unit
    ours: float | None
    ours_text: str
    others: tuple[Other, ...]


@dataclass(frozen=True)
class Forecast:
    """One quantity as the plan foretold it and as it came; `error` is signed, as a share of the measurement."""

    label: str
    predicted: float | None
    measured: float | None
    predicted_text: str
    measured_text: str
    error: float | None


@dataclass(frozen=True)
class QualityLine:
    """One metric of this run or of a baseline: value, 95 % interval, rows, and ours minus theirs."""

    metric: str
    whose: str
    value: str
    interval: str
    rows: str
    difference: str
    ours: bool


@dataclass(frozen=True)
class BillLine:
    """One part of the wall time with its share of the money."""

    label: str
    time: str
    cost: str


def comparisons(receipt: Receipt) -> tuple[Comparison, ...]:
    """Cost, times and memory beside the baselines; rows of which nobody knows anything are left out."""
    rows = [_compare(receipt, label, name, ratio) for label, name, ratio in _COMPARED]
    above_idle = tuple(_above_idle(receipt, baseline) for baseline in receipt.baselines)
    peak, idle = receipt.measured("peak_memory_bytes"), receipt.measured("idle_memory_bytes")
    if peak is not None and idle is not None and any(other.ratio is not None for other in above_idle):
        ours = peak - idle
        rows.append(Comparison(ABOVE_IDLE, "bytes", ours, amount_text(ours, "bytes"), above_idle))
    return tuple(row for row in rows if row.ours is not None or any(other.amount is not None for other in row.others))


def _compare(receipt: Receipt, label: str, name: QuantityName, ratio: Ratio) -> Comparison:
    found = receipt.quantity(name)
    unit: Unit = "usd" if name == "usd" else "bytes" if name == "peak_memory_bytes" else "seconds"
    ours = None if found is None else found.measured
    amounts: dict[QuantityName, Callable[[Baseline], float | None]] = {
        "usd": lambda baseline: baseline.usd,
        "train_seconds": lambda baseline: baseline.train_seconds,
        "wall_seconds": lambda baseline: baseline.wall_seconds,
        "peak_memory_bytes": lambda baseline: baseline.peak_memory_bytes,
    }
    others = tuple(
        Other(baseline, amounts[name](baseline), amount_text(amounts[name](baseline), unit), ratio(receipt, baseline))
        for baseline in receipt.baselines
    )
    return Comparison(label, unit, ours, amount_text(ours, unit), others)


def _above_idle(receipt: Receipt, baseline: Baseline) -> Other:
    peak, idle = baseline.peak_memory_bytes, baseline.idle_memory_bytes
    amount = None if peak is None or idle is None else peak - idle
    return Other(baseline, amount, amount_text(amount, "bytes"), memory_above_idle_ratio(receipt, baseline))


def forecasts(receipt: Receipt) -> tuple[Forecast, ...]:
    """Every prediction beside its measurement."""
    return tuple(
        Forecast(
            label=_LABELS[item.name],
            predicted=item.predicted,
            measured=item.measured,
            predicted_text=amount_text(item.predicted, item.unit),
            measured_text=amount_text(item.measured, item.unit),
            error=prediction_error(item.predicted, item.measured),
        )
        for item in receipt.measurements
    )


def quality_lines(receipt: Receipt) -> tuple[QualityLine, ...]:
    """Each metric of this run, and under it the same metric of every baseline that measured it."""
    lines: list[QualityLine] = []
    for item in receipt.quality:
        lines.append(_quality_line("this run", item, ""))
        for baseline in receipt.baselines:
            theirs = find_quality(baseline.quality, item.metric)
            if theirs is not None:
                lines.append(_quality_line(baseline.kind, theirs, difference_text(receipt, baseline, item)))
            stopped = find_quality(baseline.stopped_quality, item.metric)
            if stopped is not None:
                whose = f"{baseline.kind}, stopped at {baseline.measured_fraction:.0%}"
                lines.append(_quality_line(whose, stopped, ""))
    return tuple(lines)


def _quality_line(whose: str, item: Quality, difference: str) -> QualityLine:
    return QualityLine(
        metric=item.metric,
        whose=whose,
        value=f"{item.value:.4g}",
        interval=interval_text(item),
        rows="" if item.rows is None else count_text(item.rows),
        difference=difference,
        ours=whose == "this run",
    )


def interval_text(item: Quality) -> str:
    """The two ends of the 95 % interval, or nothing where there is none."""
    return "" if item.low is None or item.high is None else f"{item.low:.3f} to {item.high:.3f}"


def difference_text(receipt: Receipt, baseline: Baseline, item: Quality) -> str:
    """Ours minus theirs, in percentage points with the interval where both have one; empty if theirs is unknown."""
    theirs = find_quality(baseline.quality, item.metric)
    if theirs is None:
        return ""
    found = quality_difference(receipt, baseline, item.metric)
    if found is None:
        return f"{item.value - theirs.value:+.4g}"
    difference, low, high = (value * 100 for value in found)
    return f"{difference:+.1f} points ({low:+.1f} to {high:+.1f})"


def retention_lines(receipt: Receipt) -> tuple[tuple[str, str], ...]:
    """What a changed model still knows of its old domain; empty for a model that was not changed."""
    kept = receipt.retention
    if kept is None:
        return ()
    after = "not measured" if kept.after is None else f"{kept.after:.4f} ({kept.after - kept.before:+.4f})"
    return (
        ("texts", f"{kept.texts}, {kept.source}"),
        ("measure", kept.unit),
        ("the base", f"{kept.before:.4f}"),
        ("before the first step", f"{kept.start:.4f}"),
        ("at the end", after),
    )


def bill_lines(receipt: Receipt) -> tuple[BillLine, ...]:
    """The billed time by part, what no part accounts for, and the total last; money at the bill's price."""
    bill = receipt.bill
    parts = [(str(part), seconds) for part, seconds in receipt.seconds_by_part.items() if seconds > 0]
    rest = bill.billed_seconds - sum(seconds for _, seconds in parts)
    # Below a tenth of a second or a percent, the rest is clock reads, not a finding.
    if parts and rest > max(0.1, 0.01 * bill.billed_seconds):
        parts.append(("everything else", rest))
    decimals = usd_decimals(bill.usd or 0.0, 3)

    def cost(usd: float | None) -> str:
        return "" if usd is None else usd_text(usd, decimals)

    rate = bill.usd_per_hour
    lines = [BillLine(label, seconds_text(s), cost(None if rate is None else rate * s / 3600)) for label, s in parts]
    return (*lines, BillLine("total", seconds_text(bill.billed_seconds), cost(bill.usd)))


def bill_notes(receipt: Receipt) -> tuple[tuple[str, str], ...]:
    """What stands under the total: the unit cost, the budget, the energy where a meter was read."""
    bill = receipt.bill
    notes: list[tuple[str, str]] = []
    if bill.usd_per_million_tokens is not None:
        notes.append(("per million tokens", usd_text(bill.usd_per_million_tokens)))
    if bill.budget_usd is not None:
        notes.append(("budget", usd_text(bill.budget_usd)))
    if bill.budget_hours is not None:
        notes.append(("budget of time", seconds_text(bill.budget_hours * 3600)))
    if bill.kwh is not None:
        notes.append(("energy, metered", f"{bill.kwh:.3g} kWh"))
    return tuple(notes)


def price_text(receipt: Receipt) -> str:
    """The price that the bill rests on, where it came from and when."""
    bill = receipt.bill
    if bill.usd_per_hour is None:
        return "no price was stated, so no cost is claimed"
    source = f", {bill.price_source}" if bill.price_source else ""
    dated = f", {bill.price_date.isoformat()}" if bill.price_date else ""
    return f"{rate_text(bill.usd_per_hour)} per hour{source}{dated}"


def hardware_text(receipt: Receipt) -> str:
    """The machine in one line."""
    hardware = receipt.hardware
    gpus = f"{hardware.gpu_count} x {hardware.gpu}" if hardware.gpu_count > 1 else hardware.gpu
    cores = f"{hardware.cores} cores" if hardware.cores else ""
    memory = amount_text(hardware.memory_bytes, "bytes") if hardware.memory_bytes else ""
    return ", ".join(part for part in (hardware.machine, gpus, hardware.cpu, cores, memory, hardware.os) if part)


def account_lines(receipt: Receipt) -> tuple[tuple[str, str], ...]:
    """What became of the data: each figure of the account, in its own words; zero rejections say so too."""
    lines: list[tuple[str, str]] = []
    for side, account in (("", receipt.data), ("evaluation: ", receipt.evaluation_data)):
        for key, value in account.items():
            text = _account_text(value)
            if text and not (side and value == 0):
                lines.append((side + redact(key).replace("_", " "), text))
    return tuple(lines)


LONGEST_ACCOUNT_TEXT = 240
"""Characters of a figure of the account that are shown: the receipt itself has all."""


def _account_text(value: JsonValue) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:,}"
        case str():
            return value if len(value) <= LONGEST_ACCOUNT_TEXT else f"{value[:LONGEST_ACCOUNT_TEXT]}..."
        case dict():
            return ", ".join(f"{redact(key).replace('_', ' ')} {_account_text(item)}" for key, item in value.items())
        case list():
            return ", ".join(_account_text(item) for item in value)
        case None:
            return ""


def error_text(error: float | None) -> str:
    """A forecast's error, or a dash where one side is missing."""
    return "-" if error is None else percent_text(error, signed=True)


def baseline_lines(receipt: Receipt) -> tuple[tuple[str, str], ...]:
    """Each baseline: what it is, how it was measured, its versions, and whatever stands against comparing it."""
    lines: list[tuple[str, str]] = []
    for baseline in receipt.baselines:
        against = [f"not comparable: it {reason}" for reason in mismatches(receipt, baseline)]
        parts = (baseline.label, evidence_text(baseline), versions_text(baseline.versions), baseline.note, *against)
        lines.append((baseline.kind, "; ".join(part for part in parts if part)))
    return tuple(lines)


def versions_text(versions: dict[str, str]) -> str:
    """Libraries and their versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def goal_text(receipt: Receipt, met: bool | None) -> str:
    """The quality asked for and whether it was reached; empty if none was asked for."""
    goal = receipt.goal
    if goal is None:
        return ""
    bounds = [f"at least {goal.at_least:g}"] if goal.at_least is not None else []
    bounds += [f"at most {goal.at_most:g}"] if goal.at_most is not None else []
    verdict = "not measured" if met is None else "reached" if met else "missed"
    return f"{goal.metric} {' and '.join(bounds)}: {verdict}"
