"""Intervals against the tables their authors printed."""

import pytest

from tenfold.interval import difference_interval, wilson_interval

# Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
WILSON = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]

# Newcombe, the same volume, 873-890, table II, method 10.
DIFFERENCES = [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
]


@pytest.mark.parametrize(("correct", "total", "low", "high"), WILSON)
def test_wilson_is_the_published_one(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_not_the_textbook_one() -> None:
    share, total = 15 / 148, 148
    half = 1.96 * (share * (1 - share) / total) ** 0.5
    assert wilson_interval(15, 148)[0] != pytest.approx(share - half, abs=5e-3)


def test_wilson_never_leaves_zero_to_one() -> None:
    for total in (1, 2, 7, 1000):
        assert wilson_interval(0, total)[0] == 0.0
        assert wilson_interval(total, total)[1] == 1.0
        for correct in {0, 1, total // 2, total}:
            low, high = wilson_interval(correct, total)
            assert 0 <= low <= correct / total <= high <= 1


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        wilson_interval(correct, total)


@pytest.mark.parametrize(("first", "second", "low", "high"), DIFFERENCES)
def test_difference_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    one = (first[0] / first[1], *wilson_interval(*first))
    two = (second[0] / second[1], *wilson_interval(*second))
    difference, found_low, found_high = difference_interval(one, two)
    assert difference == pytest.approx(one[0] - two[0])
    assert (found_low, found_high) == pytest.approx((low, high), abs=5e-5)
