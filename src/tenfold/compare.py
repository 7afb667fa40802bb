"""What a receipt says beside a baseline, and whether a receipt agrees with itself.

Every ratio is computed here from measured parts; none is stored. A ratio is None where either side is missing: a ratio
with a guess in it would be an invention.
"""

from __future__ import annotations

from tenfold.interval import difference_interval
from tenfold.receipt import Baseline, Quality, Receipt

# Money is compared to a millionth of a dollar, the ledger's unit; times to a tenth of a percent, for clock reads.
_USD_TOLERANCE = 1e-6
_SECONDS_TOLERANCE = 1e-3


def speedup(receipt: Receipt, baseline: Baseline) -> float | None:
    """Baseline training seconds per second of ours: 10 is ten times faster."""
    return _ratio(baseline.train_seconds, receipt.measured("train_seconds"))


def wall_speedup(receipt: Receipt, baseline: Baseline) -> float | None:
    """Baseline wall seconds per second of ours, with import, loading, evaluation and saving on both sides."""
    return _ratio(baseline.wall_seconds, receipt.measured("wall_seconds"))


def memory_ratio(receipt: Receipt, baseline: Baseline) -> float | None:
    """Baseline peak memory per byte of ours."""
    return _ratio(baseline.peak_memory_bytes, receipt.measured("peak_memory_bytes"))


def memory_above_idle_ratio(receipt: Receipt, baseline: Baseline) -> float | None:
    """The same above what each process held before it loaded the model: the libraries' own share left out."""
    ours, our_idle = receipt.measured("peak_memory_bytes"), receipt.measured("idle_memory_bytes")
    theirs, their_idle = baseline.peak_memory_bytes, baseline.idle_memory_bytes
    if ours is None or our_idle is None or theirs is None or their_idle is None:
        return None
    return _ratio(theirs - their_idle, ours - our_idle)


def usd_ratio(receipt: Receipt, baseline: Baseline) -> float | None:
    """Baseline dollars per dollar of ours."""
    return _ratio(baseline.usd, receipt.measured("usd"))


def prediction_error(predicted: float | None, measured: float | None) -> float | None:
    """How far the prediction was off, as a signed share of the measurement: +0.1 foretold a tenth too much."""
    if predicted is None or measured is None or measured == 0:
        return None
    return predicted / measured - 1


def quality_difference(receipt: Receipt, baseline: Baseline, metric: str) -> tuple[float, float, float] | None:
    """Our metric minus the baseline's with its 95 % interval, where both have intervals: (difference, low, high)."""
    ours, theirs = find_quality(receipt.quality, metric), find_quality(baseline.quality, metric)
    if ours is None or theirs is None:
        return None
    if ours.low is None or ours.high is None or theirs.low is None or theirs.high is None:
        return None
    return difference_interval((ours.value, ours.low, ours.high), (theirs.value, theirs.low, theirs.high))


def find_quality(items: tuple[Quality, ...], metric: str) -> Quality | None:
    """The item of one metric, if there."""
    return next((item for item in items if item.metric == metric), None)


def goal_met(receipt: Receipt) -> bool | None:
    """Whether the quality asked for was reached; None if none was asked for or its metric was not measured."""
    goal = receipt.goal
    found = None if goal is None else find_quality(receipt.quality, goal.metric)
    if goal is None or found is None:
        return None
    high_enough = goal.at_least is None or found.value >= goal.at_least
    low_enough = goal.at_most is None or found.value <= goal.at_most
    return high_enough and low_enough


def mismatches(receipt: Receipt, baseline: Baseline) -> tuple[str, ...]:
    """Why the two may not be compared: another machine, other data, another base. Empty if nothing is known against."""
    found: list[str] = []
    theirs = baseline.hardware
    if theirs is not None and (theirs.machine, theirs.cpu, theirs.gpu, theirs.gpu_count) != (
        receipt.hardware.machine,
        receipt.hardware.cpu,
        receipt.hardware.gpu,
        receipt.hardware.gpu_count,
    ):
        found.append(f"ran on another machine ({theirs.machine})")
    if baseline.data_sha256 is not None and baseline.data_sha256 != receipt.data_sha256:
        found.append("read other data")
    if baseline.base_sha256 is not None and receipt.base_sha256 not in (None, baseline.base_sha256):
        found.append("started from other weights")
    return tuple(found)


def inconsistencies(receipt: Receipt) -> tuple[str, ...]:
    """Figures that do not follow from their own parts: a receipt edited by hand. Empty for one that tenfold wrote."""
    bill, found = receipt.bill, list[str]()
    usd, tokens = receipt.measured("usd"), receipt.measured("tokens")
    if bill.usd != usd and (bill.usd is None or usd is None or abs(bill.usd - usd) > _USD_TOLERANCE):
        found.append(f"usd: the bill says {bill.usd}, the measurements say {usd}")
    if bill.usd is not None and bill.usd_per_hour is not None:
        owed = bill.usd_per_hour * bill.billed_seconds / 3600
        if abs(owed - bill.usd) > max(_USD_TOLERANCE, owed * _SECONDS_TOLERANCE):
            found.append(f"bill.usd: {bill.usd:.6f}, but price times billed time is {owed:.6f}")
    if bill.usd_per_million_tokens is not None and bill.usd is not None and tokens:
        rate = bill.usd / tokens * 1e6
        if abs(rate - bill.usd_per_million_tokens) > max(_USD_TOLERANCE, rate * _SECONDS_TOLERANCE):
            found.append(f"bill.usd_per_million_tokens: {bill.usd_per_million_tokens}, but it is {rate:.6f}")
    wall, parts = receipt.measured("wall_seconds"), sum(receipt.seconds_by_part.values())
    if wall is not None and parts > wall * (1 + _SECONDS_TOLERANCE) + 0.1:
        found.append(f"seconds_by_part: {parts:.1f} s of parts in {wall:.1f} s of wall time")
    if receipt.ended_at < receipt.started_at:
        found.append("ended_at: before started_at")
    return tuple(found)


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None or ours <= 0 or theirs < 0 else theirs / ours
