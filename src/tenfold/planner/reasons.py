"""Why each cut is on or off, in dollars and gigabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.cuts import CUTS, Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, WarmStart, on_paper
from tenfold.job import Job
from tenfold.planner.quality import QualityEvidence, measured_text
from tenfold.planner.way import TIE, Way
from tenfold.planner.ways import count, price_way, room_bytes
from tenfold.recipe import Task


@dataclass(frozen=True)
class Known:
    """What is known of the quality of approximate cuts on this task, and which are withheld for it."""

    task: Task
    evidence: QualityEvidence
    withheld: Mapping[str, str]
    """Why, by the name of the cut."""


def explain_cuts(best: Way, ways: Sequence[Way], checkpoint: Checkpoint, known: Known) -> tuple[str, ...]:
    """One sentence for each cut of the planner, chosen or not; `checkpoint` is the one that would be made.

    Held against the best way on the same machine that differs in this cut, if one was open and fits; else against the
    same way with this cut alone changed.
    """
    others = [way for way in ways if way.job.machine == best.job.machine]
    left_out = [cut for cut in _defaults(best.job, checkpoint) if not best.has(cut.name)]
    sentences = [_on(best, cut, others) + measured_text(cut, known.task, known.evidence) for cut in best.cuts]
    return (*sentences, *(_off(best, cut, others, known) for cut in left_out))


def _on(best: Way, cut: Cut, others: Sequence[Way]) -> str:
    without = min((way for way in others if not way.has(cut.name)), key=lambda way: way.cost, default=None)
    if without is None:
        without = _priced(best.job, [other for other in best.cuts if other != cut])
        if without.peak_bytes > room_bytes(best.job.machine):
            return f"{cut.name} on: without it {_difference(best, without)}, more than this machine has"
    return f"{cut.name} on: without it {_difference(best, without)}"


def _off(best: Way, cut: Cut, others: Sequence[Way], known: Known) -> str:
    if isinstance(cut, WarmStart):
        return "warm_start off: only a recipe asks for it; `tenfold vocabulary` shows what new tokens would save"
    same = _priced(best.job, sorted([*best.cuts, cut], key=lambda one: CUTS.index(type(one))))
    if same.job == best.job:
        return f"{cut.name} off: it would change nothing here"
    if isinstance(cut, Checkpoint):
        room = room_bytes(best.job.machine) - best.peak_bytes
        return f"checkpoint off: fits with {room / 1e9:.1f} GB to spare; with it {_difference(best, same)}"
    if isinstance(cut, Quantize):
        quality = measured_text(cut, known.task, known.evidence)
        return f"quantize off: only a recipe chooses it; with it {_difference(best, same)}{quality}"
    chosen = min((way for way in others if way.has(cut.name)), key=lambda way: way.cost, default=None)
    if chosen is None:
        reason = known.withheld.get(cut.name)
        consent = f"{reason}; cuts.{cut.name}: true takes it; " if reason else ""
        return f"{cut.name} off: {consent}with it {_difference(best, same)}"
    # Among equals the fewest cuts win, whatever memory the others would save: say so, and let the reader judge.
    equal = chosen.cost <= TIE * best.cost
    what = "takes the same time" if best.usd is None else "costs the same"
    return f"{cut.name} off: {f'{what} within 1 %; ' if equal else ''}with it {_difference(best, chosen)}"


def _priced(job: Job, cuts: Sequence[Cut]) -> Way:
    return price_way(count(on_paper(cuts, job.uncut()), tuple(cuts)), job.machine)


def _defaults(job: Job, checkpoint: Checkpoint) -> tuple[Cut, ...]:
    quantize = (Quantize(),) if job.adapted else ()  # it freezes what it stores
    return (FineTune(), WarmStart(), *quantize, LoRA(), Pack(), Fuse(), checkpoint)


def _difference(way: Way, other: Way) -> str:
    """What the other way costs more or less: dollars (or time) and gigabytes."""
    gigabytes = (other.peak_bytes - way.peak_bytes) / 1e9
    if way.usd is None or other.usd is None:
        money = f"{_signed(other.seconds - way.seconds, ',.0f')} s"
    else:
        change = other.usd - way.usd
        money = f"{'+' if change >= 0 else '-'}${abs(change):,.{2 if abs(change) >= 1 else 4}f}"
    return f"{money}, {_signed(gigabytes, ',.2f')} GB"


def _signed(value: float, form: str) -> str:
    return f"{'+' if value >= 0 else '-'}{abs(value):{form}}"
