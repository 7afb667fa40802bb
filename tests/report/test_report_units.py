"""Numbers as people read them."""

import pytest

from tenfold.report.svg import round_levels, running_mean
from tenfold.report.units import bytes_text, percent_text, rate_text, seconds_text, times_text, usd_text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.00 KiB"), (1.42 * 2**30, "1.42 GiB"), (141 * 2**30, "141 GiB")],
)
def test_bytes(amount: float, text: str) -> None:
    assert bytes_text(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.042, "0.042 s"),
        (42.31, "42.3 s"),
        (59.96, "1 min 00 s"),
        (250.0, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (11_100.0, "3 h 05 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0.00"),
        (12.4, "$12.40"),
        (1234.5, "$1,234.50"),
        (0.994, "$0.99"),
        (0.32, "$0.32"),
        (0.0999, "$0.10"),
        (0.0417, "$0.042"),
        (0.00034, "$0.00034"),
        (1e-12, "$0.00000000"),
    ],
)
def test_usd(usd: float, text: str) -> None:
    assert usd_text(usd) == text


@pytest.mark.parametrize(("usd", "text"), [(0.384, "$0.384"), (2.5, "$2.50"), (3.0, "$3.00"), (1055.04, "$1,055.04")])
def test_rate(usd: float, text: str) -> None:
    assert rate_text(usd) == text


def test_ratios_and_shares() -> None:
    assert [times_text(ratio) for ratio in (0.4, 9.994, 9.996, 12.34, 99.96, 1234)] == [
        "0.40x",
        "9.99x",
        "10.0x",
        "12.3x",
        "100x",
        "1,234x",
    ]
    assert [percent_text(share) for share in (0.12, 0.001, 1.0, 0.034)] == ["12 %", "0.1 %", "100 %", "3.4 %"]
    assert [percent_text(share, signed=True) for share in (0.056, -0.12, 0.0)] == ["+5.6 %", "-12 %", "0 %"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.31, 0.32), (-3.0, 12_000.0), (5.0, 5.0), (0.0, 0.0), (0, 1e-9)]
)
def test_levels_enclose(low: float, high: float) -> None:
    levels = round_levels(low, high)
    step = levels[1] - levels[0]
    assert 2 <= len(levels) <= 8
    assert levels[0] <= low + step * 1e-6
    assert levels[-1] >= high - step * 1e-6


def test_running_mean() -> None:
    assert running_mean([2.0, 4.0, 6.0, 8.0], 2) == [2.0, 3.0, 5.0, 7.0]
    assert running_mean([2.0, 4.0], 1) == [2.0, 4.0]
    assert running_mean([], 3) == []
