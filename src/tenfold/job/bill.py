"""From seconds to dollars: interruptions, what is billed, energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, expm1, sqrt

from tenfold.machine import Machine

WATCHED = ("train", "evaluate")
"""Parts whose work is lost when the machine is taken away, back to the last saved state."""

STARTED = ("setup", "import", "tokenise", "download", "load", "compile")
"""Parts that are done again after each interruption."""


@dataclass(frozen=True)
class Bill:
    """What a run costs on one machine."""

    seconds_by_part: Mapping[str, float]
    """With the expected cost of interruptions, and with the states that are saved for them."""
    billed_seconds: float
    usd: float | None
    kwh: float | None
    grams_co2e: float | None
    save_every_seconds: float | None
    """Training between saved states that keeps the expected cost of interruptions least; None without any."""


def bill(
    parts: Mapping[str, float], machine: Machine, one_save_seconds: float, saved_share: float | None = None
) -> Bill:
    """The expected bill of a run's undisturbed parts on `machine`; a saved state takes `one_save_seconds`.

    `saved_share`: of the steps after which a state is saved, where the recipe says; those states are in the parts.
    """
    spent = dict(parts)
    hours = machine.terms.hours_between_interruptions
    every = None
    if hours is not None:
        watched = sum(parts[name] for name in WATCHED)
        again = sum(parts[name] for name in STARTED)
        best = saving_interval(one_save_seconds, hours * 3600)
        every = min(best if saved_share is None else saved_share * watched, watched)
        total = expected_seconds(watched, every, one_save_seconds, again, hours * 3600)
        saving = watched / every * one_save_seconds if every < watched else 0.0
        spent["checkpoint"] += saving if saved_share is None else 0.0
        spent["interruptions"] = max(0.0, total - watched - saving)
    seconds = sum(spent.values())
    billed = machine.terms.billed_seconds(seconds)
    price = machine.usd_per_hour
    kwh = None if machine.power is None else machine.power.kwh(seconds)
    grams = None if kwh is None or machine.power is None else kwh * machine.power.grams_co2e_per_kwh
    return Bill(spent, billed, None if price is None else billed / 3600 * price, kwh, grams, every)


def saving_interval(save_seconds: float, mean_seconds: float) -> float:
    """Seconds of work between saved states, where a machine is lost every `mean_seconds` on average.

    Daly's higher-order estimate of the optimum (Future Generation Computer Systems 22, 2006, equation 37), whose first
    term is Young's (Communications of the ACM 17, 1974).
    """
    if save_seconds >= 2 * mean_seconds:
        return mean_seconds
    share = save_seconds / (2 * mean_seconds)
    young = sqrt(2 * save_seconds * mean_seconds)
    return max(save_seconds, young * (1 + sqrt(share) / 3 + share / 9) - save_seconds)


def expected_seconds(
    work_seconds: float, every_seconds: float, save_seconds: float, restart_seconds: float, mean_seconds: float
) -> float:
    """Expected time of `work_seconds` of work with a state saved every so many, interruptions at random.

    Daly's complete model (ibid., equation 20): M e^(R/M) (e^((t+d)/M) - 1) W/t. Where one interval holds all the work,
    nothing is saved before its end.
    """
    if work_seconds <= 0:
        return 0.0
    segment = min(every_seconds, work_seconds)
    saved = save_seconds if segment < work_seconds else 0.0
    once = mean_seconds * exp(restart_seconds / mean_seconds) * expm1((segment + saved) / mean_seconds)
    return once * work_seconds / segment
