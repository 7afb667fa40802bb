"""How sure a measured share is: an accuracy on 200 rows is a range, and a receipt that hides it claims too much."""

from __future__ import annotations

from math import sqrt

# The 97.5 % quantile of the normal distribution: two-sided 95 %.
_Z95 = 1.959963984540054


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share, low and high in [0, 1]; right for small counts and shares near 0 or 1.

    E. B. Wilson, JASA 22 (1927) 209-212; recommended by Brown, Cai, DasGupta, Statistical Science 16 (2001) 101-133.
    Raises ValueError unless 0 <= correct <= total and total > 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total} is not a share")
    share, z2 = correct / total, _Z95**2
    centre = share + z2 / (2 * total)
    half = _Z95 * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    scale = 1 + z2 / total
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == total else (centre + half) / scale
    return low, high


def difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """How far two shares lie apart, first minus second, with its 95 % interval: (difference, low, high).

    Each argument is (share, low, high) with Wilson's interval. R. G. Newcombe, Statistics in Medicine 17 (1998)
    873-890, method 10, for independent samples; on the same rows it is wider than need be, which errs on the safe side.
    """
    share1, low1, high1 = first
    share2, low2, high2 = second
    difference = share1 - share2
    low = difference - sqrt((share1 - low1) ** 2 + (high2 - share2) ** 2)
    high = difference + sqrt((high1 - share1) ** 2 + (share2 - low2) ** 2)
    return difference, low, high
