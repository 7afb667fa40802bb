"""Ratios are computed from measured parts, and are absent where a part is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from receipts import bare_receipt, full_receipt
from tenfold.compare import (
    goal_met,
    inconsistencies,
    memory_above_idle_ratio,
    memory_ratio,
    mismatches,
    prediction_error,
    quality_difference,
    speedup,
    usd_ratio,
    wall_speedup,
)
from tenfold.receipt import Baseline, Hardware, Measured, Quality, QualityGoal, Receipt

FULL = full_receipt()
NAIVE, PEER = FULL.baselines
UNKNOWN = Baseline(kind="naive", label="nobody ran it", how="predicted", measured_fraction=0.0)
RATIOS = [speedup, wall_speedup, memory_ratio, usd_ratio, memory_above_idle_ratio]


def with_measured(name: str, value: float | None) -> Receipt:
    changed = tuple(
        item.model_copy(update={"measured": value}) if item.name == name else item for item in FULL.measurements
    )
    return FULL.model_copy(update={"measurements": changed})


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (speedup, 2894.0 / 251.4),
        (wall_speedup, 2992.0 / 312.0),
        (memory_ratio, 4.31 / 1.24),
        (usd_ratio, 2992.0 / 312.0),
        (memory_above_idle_ratio, (4.31 - 0.54) / (1.24 - 0.52)),
    ],
)
def test_baseline_over_ours(ratio: Callable[[Receipt, Baseline], float | None], expected: float) -> None:
    assert ratio(FULL, NAIVE) == pytest.approx(expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_nothing_is_invented(ratio: Callable[[Receipt, Baseline], float | None]) -> None:
    assert ratio(FULL, UNKNOWN) is None
    assert ratio(bare_receipt(), NAIVE) is None
    assert ratio(FULL, NAIVE) is not None


def test_ours_for_nothing_is_no_infinite_saving() -> None:
    assert usd_ratio(with_measured("usd", 0.0), NAIVE) is None
    assert memory_above_idle_ratio(FULL, PEER) is None


@pytest.mark.parametrize(
    ("predicted", "measured", "error"),
    [(110.0, 100.0, 0.1), (90.0, 100.0, -0.1), (1.0, 0.0, None), (None, 1.0, None), (1.0, None, None)],
)
def test_prediction_error(predicted: float | None, measured: float | None, error: float | None) -> None:
    assert prediction_error(predicted, measured) == (None if error is None else pytest.approx(error))


def test_quality_differs_by_an_interval() -> None:
    found = quality_difference(FULL, PEER, "accuracy")
    assert found is not None
    difference, low, high = found
    assert difference == pytest.approx(7 / 2000)
    assert low < 0 < difference < high
    assert quality_difference(FULL, NAIVE, "accuracy") is None
    assert quality_difference(FULL, PEER, "loss") is None


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (None, None),
        (QualityGoal(metric="accuracy", at_least=0.9), True),
        (QualityGoal(metric="accuracy", at_least=0.95), False),
        (QualityGoal(metric="loss", at_most=0.4), True),
        (QualityGoal(metric="loss", at_most=0.3), False),
        (QualityGoal(metric="perplexity", at_most=3.0), None),
    ],
)
def test_goal(goal: QualityGoal | None, met: bool | None) -> None:
    assert goal_met(FULL.model_copy(update={"goal": goal})) is met


def test_unlike_runs_are_not_compared() -> None:
    assert mismatches(FULL, NAIVE) == ()
    elsewhere = NAIVE.model_copy(update={"hardware": Hardware(machine="h100"), "data_sha256": "e" * 64})
    assert mismatches(FULL, elsewhere) == ("ran on another machine (h100)", "read other data")
    assert mismatches(FULL, NAIVE.model_copy(update={"base_sha256": "f" * 64})) == ("started from other weights",)


def test_our_own_receipts_agree_with_themselves() -> None:
    assert inconsistencies(FULL) == ()
    assert inconsistencies(bare_receipt()) == ()


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("usd", 0.02, "price times billed time"),
        ("billed_seconds", 200.0, "price times billed time"),
        ("usd_per_hour", 0.2, "price times billed time"),
        ("usd_per_million_tokens", 0.01, "usd_per_million_tokens"),
    ],
)
def test_an_edited_bill_shows(field: str, value: float, found: str) -> None:
    edited = FULL.model_copy(update={"bill": FULL.bill.model_copy(update={field: value})})
    assert any(found in line for line in inconsistencies(edited))


def test_an_edited_measurement_shows() -> None:
    assert any("measurements say" in line for line in inconsistencies(with_measured("usd", 0.001)))
    assert any("seconds_by_part" in line for line in inconsistencies(with_measured("wall_seconds", 60.0)))
    back = FULL.model_copy(update={"ended_at": FULL.started_at.replace(year=2025)})
    assert inconsistencies(back) == ("ended_at: before started_at",)


def test_missing_measurements_are_none() -> None:
    assert bare_receipt().measured("usd") is None
    assert FULL.quantity("steps") == Measured(name="steps", unit="steps", predicted=750, measured=750)
    assert Quality.accuracy(1, 2).rows == 2
