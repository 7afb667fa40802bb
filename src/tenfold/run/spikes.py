"""What counts as a spike of the training loss.

The rule of OLMo-core's SkipStepOptimizer, six standard deviations above the last 128 losses, in the form that a spike
among those 128 does not blunt: Hampel's identifier (median and median absolute deviation; Davies and Gather, "The
identification of multiple outliers", JASA 1993). Of logarithms, since losses scatter in proportion to their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

WINDOW = 128
"""Losses that are looked back on (OLMo-core's `rolling_interval_length`)."""

LEAST = 16
"""Before so many nothing is a spike: the deviation of 16 is known to 29 % (1.166 / sqrt(n))."""

_SIGMAS = 6.0
"""OLMo-core's `sigma_factor`."""

_PER_MAD = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""

_LEAST_FACTOR = 3.0
"""However little the losses scatter (Lightning's SpikeDetection: `rtol=2.0` above the mean)."""

_SMALL = 0.01
"""Nats. What is below is learned to 99 %, and counts as this: a hundred times next to nothing is no spike."""


def spike_factor(loss: float, recent: Sequence[float]) -> float | None:
    """How many times the median of the `recent` losses, newest last, a `loss` is if it is a spike; else None."""
    if len(recent) < LEAST:
        return None
    logs = [math.log(max(value, _SMALL)) for value in recent[-WINDOW:]]
    middle = median(logs)
    deviation = _PER_MAD * median(abs(value - middle) for value in logs)
    above = math.log(max(loss, _SMALL)) - middle
    return math.exp(above) if above >= max(math.log(_LEAST_FACTOR), _SIGMAS * deviation) else None
