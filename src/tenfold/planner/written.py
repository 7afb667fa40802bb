"""The chosen way and all that it was chosen from, as a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from math import ceil

from tenfold.job import Job, bill, flops_by_part, peak_moment, seconds_by_part, training_work
from tenfold.job.seconds import one_save_seconds, saved_share
from tenfold.machine import Machine
from tenfold.planner.choice import Choice, cheapest_by_machine, pareto_front
from tenfold.planner.naive import naive_job
from tenfold.planner.plan import (
    MachineOnPaper,
    OnMachine,
    Plan,
    Prediction,
    Rejected,
    RunnerUp,
    ShapeOnPaper,
    VocabularyOnPaper,
    WorkloadOnPaper,
)
from tenfold.planner.trade import what_more_buys
from tenfold.planner.way import Way
from tenfold.recipe import Recipe

RUNNERS_UP = 5

EXAMPLES = 12
"""Tokens of a new vocabulary that a plan names."""

MOST_OF_FRONT = 12
"""Ways of the front that a plan keeps: evenly, the ends included."""


def write_plan(recipe: Recipe, choice: Choice, why: tuple[str, ...], notes: tuple[str, ...]) -> Plan:
    """Everything that `train` needs and a reader wants to know."""
    chosen, ways, rejected = choice.best, choice.affordable, choice.rejected
    job, today = chosen.job, datetime.now(UTC).date()
    padded = replace(job, packed_tokens=None)
    front = pareto_front(choice.fitting)
    return Plan(
        created_at=datetime.now(UTC),
        recipe=recipe,
        shape=ShapeOnPaper(**{name: getattr(job.shape, name) for name in ShapeOnPaper.model_fields}),
        workload=WorkloadOnPaper(
            rows=job.workload.rows,
            tokens=job.workload.tokens,
            loss_tokens=job.workload.loss_tokens,
            longest=job.workload.longest,
            padding_share=1 - padded.tokens_trained / padded.computed_tokens,
        ),
        machine=machine_on_paper(job.machine, today),
        cuts=tuple(cut.to_dict() for cut in chosen.cuts),
        micro_batch_size=job.micro_rows,
        optimizer=job.optimizer,
        save_every_steps=_save_every_steps(recipe, chosen),
        prediction=predict(job),
        considered=len(ways) + sum(rejected.values()),
        runners_up=_runners_up(chosen, ways),
        rejected=tuple(Rejected(reason=reason, count=count) for reason, count in rejected.most_common() if count),
        why=why,
        front=tuple(_runner_up(way) for way in _thinned(front)),
        buys=what_more_buys(chosen, front),
        by_machine=_by_machine(chosen, ways),
        notes=(*notes, *_doubts(job.machine, today)),
        vocabulary=vocabulary_on_paper(job),
        naive=predict(naive_job(job, recipe.train)),
        from_scratch=predict(job.uncut()),
    )


def predict(job: Job) -> Prediction:
    """Everything that is foretold of a job on its machine."""
    found = bill(seconds_by_part(job), job.machine, one_save_seconds(job), saved_share(job))
    moment = peak_moment(job)
    return Prediction(
        steps=job.steps,
        tokens=job.tokens_trained,
        peak_bytes=moment.bytes,
        peak_moment=moment.name,
        bytes_by_kind=dict(moment.bytes_by_kind),
        flops_by_part=flops_by_part(job),
        work=asdict(training_work(job)),
        seconds_by_part=dict(found.seconds_by_part),
        total_seconds=sum(found.seconds_by_part.values()),
        billed_seconds=found.billed_seconds,
        usd=found.usd,
        kwh=found.kwh,
        grams_co2e=found.grams_co2e,
        error=job.machine.efficiency.error,
    )


def vocabulary_on_paper(job: Job) -> VocabularyOnPaper | None:
    """What a plan says of a new vocabulary; None without one."""
    new = None if job.original is None else job.original[1].new_vocabulary
    if job.original is None or new is None:
        return None
    return VocabularyOnPaper(
        new_rows=new.new_rows,
        table_rows=new.table_rows,
        least_saved=new.least_saved,
        examples=new.tokens[:EXAMPLES],
        tokens_before=job.original[1].tokens,
        tokens_after=job.workload.tokens,
        share_on_new_text=new.share_on_new_text,
    )


def machine_on_paper(machine: Machine, today: date) -> MachineOnPaper:
    """What a plan says of its machine."""
    return MachineOnPaper(
        name=machine.name,
        vendor_kind=machine.vendor_kind,
        dtype=machine.dtype,
        memory_bytes=machine.memory_bytes,
        usd_per_hour=machine.usd_per_hour,
        provider=machine.provider,
        tier=machine.tier,
        price_source=machine.price_source,
        price_date=machine.price_date,
        price_doubt=machine.price_doubt(today),
        hours_between_interruptions=machine.terms.hours_between_interruptions,
        terms_source=machine.terms.source,
        guessed=machine.efficiency.guessed,
        efficiency_source=machine.efficiency.source,
    )


def _save_every_steps(recipe: Recipe, chosen: Way) -> int | None:
    every = chosen.bill.save_every_seconds
    if recipe.train.save_every_steps is not None or every is None:
        return recipe.train.save_every_steps
    step = chosen.bill.seconds_by_part["train"] / chosen.job.steps
    steps = max(1, ceil(every / step)) if step else chosen.job.steps
    return None if steps >= chosen.job.steps else steps


def _doubts(machine: Machine, today: date) -> tuple[str, ...]:
    """What the reader should not take for certain."""
    found: list[str] = []
    if doubt := machine.price_doubt(today):
        found.append(
            f"the price of {machine.label} is {doubt} ({machine.price_source}); check it, and give yours by --price"
        )
    if machine.efficiency.guessed:
        how = (
            "tenfold calibrate measures it in a minute" if machine.here else "tenfold calibrate, run there, measures it"
        )
        found.append(f"the speed of {machine.name} is a guess, ± {machine.efficiency.error:.0%}; {how}")
    hours = machine.terms.hours_between_interruptions
    if hours is not None:
        found.append(
            f"{machine.label} is taken to go away every {hours:g} hours ({machine.terms.source});"
            " machine.hours_between_interruptions says otherwise"
        )
    return tuple(found)


def _runner_up(way: Way) -> RunnerUp:
    return RunnerUp(
        machine=way.job.machine.label,
        cuts=tuple(cut.name for cut in way.cuts),
        total_seconds=way.seconds,
        usd=way.usd,
        peak_bytes=way.peak_bytes,
        guessed=way.job.machine.efficiency.guessed,
    )


def _runners_up(chosen: Way, ways: Sequence[Way]) -> tuple[RunnerUp, ...]:
    """The cheapest way on each other machine, then other cuts on the chosen one; cheapest first."""
    here = chosen.job.machine.label
    cheapest: dict[tuple[str, ...], Way] = {}
    for way in ways:
        label = way.job.machine.label
        key = (label, *(cut.name for cut in way.cuts)) if label == here else (label,)
        if key not in cheapest or way.cost < cheapest[key].cost:
            cheapest[key] = way
    cheapest.pop((here, *(cut.name for cut in chosen.cuts)), None)
    ranked = sorted(cheapest.values(), key=lambda way: (way.job.machine.label == here, way.cost))[:RUNNERS_UP]
    return tuple(_runner_up(way) for way in ranked)


def _thinned(front: Sequence[Way]) -> list[Way]:
    if len(front) <= MOST_OF_FRONT:
        return list(front)
    last = len(front) - 1
    return [front[round(number * last / (MOST_OF_FRONT - 1))] for number in range(MOST_OF_FRONT)]


def _by_machine(chosen: Way, ways: Sequence[Way]) -> tuple[OnMachine, ...]:
    found = cheapest_by_machine(ways)
    found[chosen.job.machine.name] = chosen
    return tuple(
        OnMachine(
            machine=way.job.machine.label,
            memory_bytes=way.job.machine.memory_bytes,
            bytes_by_kind=dict(peak_moment(way.job).bytes_by_kind),
            total_seconds=way.seconds,
            usd=way.usd,
            chosen=way is chosen,
        )
        for way in sorted(found.values(), key=lambda way: way.cost)
    )
