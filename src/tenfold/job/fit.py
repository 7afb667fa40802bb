"""Rates from observations: what was counted on paper, beside the seconds that were measured.

One function for the shipped evidence, for calibration and for what finished runs teach. Rates are positive and known
before as far as a factor, so their logarithms get a normal prior around the known ones; then relative errors are made
least by Gauss and Newton's method. With few observations only what they speak of moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log

from tenfold.job.seconds import work_seconds
from tenfold.job.work import Work
from tenfold.machine import RATES, Efficiency, Machine

PRIOR_WIDTH = 0.5
"""Standard deviation of the logarithm of a rate before anything was measured: a factor of 1.6."""

NOISE = 0.05
"""Standard deviation of one observation's relative error that no rate explains: runs repeat to about so much."""

ITERATIONS = 12
LARGEST_STEP = 0.5
"""Of a logarithm in one iteration: the sum of a maximum and other terms is no parabola far from its minimum."""


@dataclass(frozen=True)
class Observation:
    """Steps that were counted and timed."""

    work: Work
    seconds: float
    weight: float = 1.0
    """1 for one good measurement; less where it says less."""


def fit_efficiency(
    machine: Machine,
    observations: Sequence[Observation],
    prior_width: float = PRIOR_WIDTH,
    host_width: float | None = None,
) -> Efficiency:
    """The machine's efficiency as the observations have it, starting from what is known. `error` and source stay.

    `host_width`: in place of `prior_width` for what a host takes, where the card is known and its host is not.
    """
    known = machine.efficiency
    widths = dict.fromkeys(RATES, prior_width)
    if host_width is not None:
        widths |= dict.fromkeys(HOST_RATES, host_width)

    def errors(rates: Mapping[str, float]) -> list[float]:
        changed = replace(known, **rates)
        return [(work_seconds(one.work, machine, changed) / one.seconds - 1) * one.weight**0.5 for one in observations]

    start = {name: getattr(known, name) for name in RATES if getattr(known, name) > 0}
    return replace(known, **fit_rates(start, errors, widths))


HOST_RATES = ("launch_seconds", "micro_batch_seconds", "step_seconds", "token_seconds")
"""What a GPU waits for: its host's, not its own."""


LEARNED_WIDTH = 0.35
"""As PRIOR_WIDTH, for what finished runs teach: they say how all rates together come out, and little of each."""

LEAST_LEARNED = 3
"""Runs after which a guess is no guess any more."""


def learned(machine: Machine, observations: Sequence[Observation]) -> Machine:
    """The machine as its finished runs have it; the same one without any.

    Its error becomes twice the spread of what the runs still miss by, where there are enough of them to tell.
    """
    if not observations:
        return machine
    found = fit_efficiency(machine, observations, LEARNED_WIDTH)
    count = len(observations)
    if count >= LEAST_LEARNED:
        misses = [work_seconds(one.work, machine, found) / one.seconds - 1 for one in observations]
        spread = 2 * (sum(miss**2 for miss in misses) / count) ** 0.5
        found = replace(found, guessed=False, error=max(LEAST_ERROR, spread))
    runs = f"{count} finished run{'s' if count > 1 else ''}"
    return replace(machine, efficiency=replace(found, source=f"{machine.efficiency.source}; corrected by {runs}"))


LEAST_ERROR = 0.10
"""What a prediction may be off by at least, however well the last runs were met: runs differ by some percent."""


def fit_rates(
    known: Mapping[str, float],
    errors: Callable[[Mapping[str, float]], Sequence[float]],
    widths: Mapping[str, float],
) -> dict[str, float]:
    """Positive rates near the known ones, by the widths of their priors, that make the relative errors least."""
    names = list(known)
    centre = [log(known[name]) for name in names]
    place = list(centre)

    def rates(point: Sequence[float]) -> dict[str, float]:
        return {name: exp(value) for name, value in zip(names, point, strict=True)}

    for _ in range(ITERATIONS):
        found = errors(rates(place))
        slopes = [_slope(errors, rates, place, number, found) for number in range(len(names))]
        tight = [1 / widths[name] ** 2 for name in names]
        matrix = [
            [sum(a * b for a, b in zip(one, other, strict=True)) / NOISE**2 for other in slopes] for one in slopes
        ]
        right = [-sum(a * e for a, e in zip(one, found, strict=True)) / NOISE**2 for one in slopes]
        for number in range(len(names)):
            matrix[number][number] += tight[number]
            right[number] -= tight[number] * (place[number] - centre[number])
        step = _solve(matrix, right)
        place = [value + max(-LARGEST_STEP, min(LARGEST_STEP, move)) for value, move in zip(place, step, strict=True)]
        if max(map(abs, step), default=0.0) < 1e-4:
            break
    return rates(place)


def _slope(
    errors: Callable[[Mapping[str, float]], Sequence[float]],
    rates: Callable[[Sequence[float]], dict[str, float]],
    place: Sequence[float],
    number: int,
    found: Sequence[float],
    width: float = 1e-3,
) -> list[float]:
    """How every error changes with the logarithm of one rate."""
    moved = [value + (width if other == number else 0.0) for other, value in enumerate(place)]
    return [(after - before) / width for after, before in zip(errors(rates(moved)), found, strict=True)]


def _solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x with matrix x = right, the matrix symmetric and positive: elimination with the largest pivot."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(column + 1, size):
            share = rows[row][column] / rows[column][column]
            rows[row] = [a - share * b for a, b in zip(rows[row], rows[column], strict=True)]
    solution = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(rows[row][column] * solution[column] for column in range(row + 1, size))
        solution[row] = (rows[row][size] - rest) / rows[row][row]
    return solution
