"""The first thing a reader sees: what was bought, for how much, and how much less that was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.compare import goal_met, memory_ratio, mismatches, speedup, usd_ratio
from tenfold.receipt import Baseline, Receipt
from tenfold.report.figures import difference_text, interval_text
from tenfold.report.units import TIMES, amount_text, evidence_text, times_text, usd_text

Tone = Literal["good", "poor", ""]


@dataclass(frozen=True)
class Tile:
    """One headline figure, with a line under it that says beside what."""

    label: str
    value: str
    beside: str = ""
    tone: Tone = ""
    known: bool = True


def tiles(receipt: Receipt) -> tuple[Tile, ...]:
    """Cost, training time, peak memory and the first metric, each beside the first baseline."""
    baseline = receipt.baselines[0] if receipt.baselines else None
    usd, time = receipt.measured("usd"), receipt.measured("train_seconds")
    peak = receipt.measured("peak_memory_bytes")
    cost = "no price stated" if usd is None else usd_text(usd)
    found = (
        Tile("cost", cost, *_beside(receipt, baseline, "usd"), usd is not None),
        Tile("training time", amount_text(time, "seconds"), *_beside(receipt, baseline, "seconds"), time is not None),
        Tile("peak memory", amount_text(peak, "bytes"), *_beside(receipt, baseline, "bytes"), peak is not None),
    )
    return (*found, *_quality_tile(receipt, baseline))


def verdict(receipt: Receipt) -> tuple[str, Tone]:
    """One sentence on the saving, with its evidence; empty without a baseline to compare with."""
    if not receipt.baselines:
        return "", ""
    baseline = receipt.baselines[0]
    against = mismatches(receipt, baseline)
    if against:
        return f"Not comparable with {baseline.label}: it {' and '.join(against)}", "poor"
    by_money = usd_ratio(receipt, baseline)
    ratio = by_money if by_money is not None else speedup(receipt, baseline)
    if not ratio:
        return "", ""
    words = ("cheaper", "dearer") if by_money is not None else ("faster", "slower")
    text, tone = _times(ratio, words)
    return f"{text} than {baseline.label} ({evidence_text(baseline)})", tone


def _times(ratio: float, words: tuple[str, str]) -> tuple[str, Tone]:
    """A ratio in words: never "0.5x faster", but "2x slower"."""
    if ratio >= 1:
        return f"{times_text(ratio, TIMES)} {words[0]}", "good"
    return f"{times_text(1 / ratio, TIMES)} {words[1]}", "poor"


def _beside(receipt: Receipt, baseline: Baseline | None, unit: Literal["usd", "seconds", "bytes"]) -> tuple[str, Tone]:
    if baseline is None:
        return "", ""
    compute = {"usd": usd_ratio, "seconds": speedup, "bytes": memory_ratio}[unit]
    ratio = compute(receipt, baseline)
    if not ratio:
        return f"{baseline.kind} not known", ""
    text, tone = _times(ratio, ("faster", "slower") if unit == "seconds" else ("less", "more"))
    return f"{text} than {baseline.kind}", tone


def _quality_tile(receipt: Receipt, baseline: Baseline | None) -> tuple[Tile, ...]:
    if not receipt.quality:
        return (Tile("quality", "not measured", known=False),)
    item = receipt.quality[0]
    beside = f"95 % interval {interval}" if (interval := interval_text(item)) else ""
    if baseline is not None and (difference := difference_text(receipt, baseline, item)):
        beside = f"{difference} against {baseline.kind}"
    tone: Tone = "poor" if goal_met(receipt) is False else ""
    return (Tile(item.metric, f"{item.value:.4g}", beside, tone),)
