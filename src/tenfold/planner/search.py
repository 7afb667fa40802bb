"""Exhaustive search: no solver, every combination priced, the cheapest that meets the wishes taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from math import ceil

from tenfold.cuts import Checkpoint, Cut, Pack
from tenfold.errors import InputError, NoPlanFits
from tenfold.job import Job, bytes_by_kind, flops_by_part, peak_bytes, seconds_by_part, usd_of
from tenfold.job.memory import MARGIN
from tenfold.machine import Machine
from tenfold.planner.capable import capable
from tenfold.planner.forced import check_forced
from tenfold.planner.naive import naive_job
from tenfold.planner.options import (
    Option,
    checkpoint_options,
    fine_tune_options,
    fuse_options,
    lora_options,
    micro_row_options,
    named_checkpoint,
    pack_options,
    quantize_options,
)
from tenfold.planner.plan import MachineOnPaper, Plan, Prediction, Rejected, RunnerUp, ShapeOnPaper, WorkloadOnPaper
from tenfold.planner.quality import QualityEvidence, consent, quality_evidence, withhold
from tenfold.planner.reasons import Known, explain_cuts
from tenfold.planner.way import TIE, Way
from tenfold.recipe import Recipe
from tenfold.shape import Shape
from tenfold.workload import Workload

RUNNERS_UP = 5


def make_plan(
    recipe: Recipe,
    shape: Shape,
    workload: Workload,
    machines: Sequence[Machine],
    evidence: QualityEvidence | None = None,
) -> Plan:
    """The cheapest combination of cuts and machines that fits memory, budget and deadline.

    Approximate cuts that the recipe leaves open are taken only on `evidence`; None is what tenfold ships. Raises
    InputError if a forced cut cannot work or a budget in dollars has no price, NoPlanFits naming the nearest wish that
    can be met.
    """
    if recipe.budget.usd is not None and any(machine.usd_per_hour is None for machine in machines):
        raise InputError("budget.usd: this machine has no price; set machine.usd_per_hour, or budget.hours instead")
    machines = capable(recipe, machines)
    dense = _dense_job(recipe, shape, workload, machines[0])
    check_forced(recipe, dense)
    evidence = quality_evidence() if evidence is None else evidence
    allowed, withheld = withhold(recipe, evidence)
    try:
        best, ways, rejected = _choose(allowed, dense, machines)
    except NoPlanFits as error:
        raise NoPlanFits(f"{error}{_with_consent(recipe, withheld, dense, machines)}") from None
    checkpoint = named_checkpoint(recipe, shape.layers) or Checkpoint(shape.layers)
    why = explain_cuts(best, ways, checkpoint, Known(recipe.task, evidence, withheld))
    return _to_plan(recipe, best, ways, rejected, why)


def _choose(recipe: Recipe, dense: Job, machines: Sequence[Machine]) -> tuple[Way, Sequence[Way], Counter[str]]:
    """The best way, all that meet the wishes, and how many failed for which reason."""
    rejected: Counter[str] = Counter()
    fitting = [way for group in _same_hardware(machines) for way in _priced(recipe, dense, group, rejected)]
    if not fitting:
        raise NoPlanFits(_nothing_fits(recipe, dense, machines))
    affordable = [way for way in fitting if _within_budget(recipe, way)]
    rejected["over the budget or the deadline"] = len(fitting) - len(affordable)
    if not affordable:
        raise NoPlanFits(_nothing_affordable(recipe, fitting))
    return _best(affordable), affordable, rejected


def _with_consent(recipe: Recipe, withheld: Mapping[str, str], dense: Job, machines: Sequence[Machine]) -> str:
    """The wish that would do where only cuts without evidence are in the way."""
    if not withheld:
        return ""
    try:
        _choose(consent(recipe, withheld), dense, machines)
    except NoPlanFits:
        return ""
    named = ", ".join(f"cuts.{name}: true would do ({reason})" for name, reason in withheld.items())
    return f"; {named}"


def _best(ways: Sequence[Way]) -> Way:
    """The cheapest; among equals the one with fewest cuts, then the fastest, then the one that needs least memory."""
    cheapest = min(way.cost for way in ways)
    equals = [way for way in ways if way.cost <= TIE * cheapest]
    fewest = min(len(way.cuts) for way in equals)
    equals = [way for way in equals if len(way.cuts) == fewest]
    fastest = min(way.seconds for way in equals)
    return min((way for way in equals if way.seconds <= TIE * fastest), key=lambda way: (way.peak_bytes, way.cost))


def predict(job: Job) -> Prediction:
    """Everything that is foretold of a job."""
    seconds = seconds_by_part(job)
    total = sum(seconds.values())
    return Prediction(
        steps=job.steps,
        tokens=job.tokens_trained,
        peak_bytes=peak_bytes(job),
        bytes_by_kind=bytes_by_kind(job),
        flops_by_part=flops_by_part(job),
        seconds_by_part=seconds,
        total_seconds=total,
        usd=usd_of(job, total),
        error=job.machine.efficiency.error,
    )


def _dense_job(recipe: Recipe, shape: Shape, workload: Workload, machine: Machine) -> Job:
    train = recipe.train
    per_epoch = ceil(workload.rows / train.batch_size)
    steps = train.max_steps or ceil(train.epochs * per_epoch)
    every = train.eval_every_steps or per_epoch
    return Job(
        shape=shape,
        workload=workload,
        machine=machine,
        task=recipe.task,
        batch_size=train.batch_size,
        micro_rows=train.batch_size,
        steps_wanted=train.max_steps,
        epochs=train.epochs,
        labels=workload.labels,
        optimizer=train.optimizer,
        evaluations=ceil(steps / every) if workload.evaluation_tokens else 0,
    )


def _same_hardware(machines: Sequence[Machine]) -> list[list[Machine]]:
    """Machines grouped by hardware: within a group only prices differ."""
    groups: dict[str, list[Machine]] = {}
    for machine in machines:
        groups.setdefault(machine.name, []).append(machine)
    return list(groups.values())


def _priced(recipe: Recipe, dense: Job, group: Sequence[Machine], rejected: Counter[str]) -> Iterator[Way]:
    """The ways on one kind of machine, worked out once, at each of its prices."""
    for way in _ways(recipe, replace(dense, machine=group[0]), rejected):
        for machine in group:
            job = way.job if machine is group[0] else replace(way.job, machine=machine)
            yield replace(way, job=job, usd=usd_of(job, way.seconds))


def _ways(recipe: Recipe, dense: Job, rejected: Counter[str]) -> Iterator[Way]:
    """All combinations on one machine that fit its memory."""
    room = dense.machine.memory_bytes * (1 - MARGIN)
    fixed = product(
        fine_tune_options(recipe),
        quantize_options(recipe),
        lora_options(recipe),
        pack_options(recipe, dense.workload),
        fuse_options(recipe),
    )
    for options in fixed:
        packed = any(isinstance(option, Pack) for option in options)
        for rows in (recipe.train.batch_size,) if packed else micro_row_options(recipe):
            base, cuts = _fold(options, replace(dense, micro_rows=rows))
            if len(cuts) != sum(option is not None for option in options):
                continue  # a cut that changes nothing: the same way without it is priced too
            for checkpoint in checkpoint_options(recipe, base, room):
                job = base if checkpoint is None else checkpoint.price(base)
                peak = peak_bytes(job)
                if peak > room:
                    continue
                seconds = sum(seconds_by_part(job).values())
                every = cuts if checkpoint is None else (*cuts, checkpoint)
                yield Way(job, every, peak, seconds, usd_of(job, seconds))
                break
            else:
                rejected["need more memory than their machine has"] += 1


def _fold(options: Iterable[Option], job: Job) -> tuple[Job, tuple[Cut, ...]]:
    """The job with the options' cuts, and those of them that changed it."""
    kept: list[Cut] = []
    for option in options:
        if option is not None and (changed := option.price(job)) != job:
            job = changed
            kept.append(option)
    return job, tuple(kept)


def _within_budget(recipe: Recipe, way: Way) -> bool:
    budget = recipe.budget
    in_time = budget.hours is None or way.seconds <= budget.hours * 3600
    return in_time and (budget.usd is None or (way.usd is not None and way.usd <= budget.usd))


def _nothing_fits(recipe: Recipe, dense: Job, machines: Sequence[Machine]) -> str:
    largest = max(machines, key=lambda machine: machine.memory_bytes)
    ways = list(_ways(recipe, replace(dense, machine=replace(largest, memory_bytes=2**62)), Counter()))
    least = min(way.peak_bytes for way in ways) / (1 - MARGIN)
    return (
        f"no plan fits: the smallest way needs {least / 2**30:.1f} GiB with its margin, and the largest allowed"
        f" machine, {largest.label}, has {largest.memory_bytes / 2**30:.1f}; allow more cuts, a shorter"
        " data.max_length, or a larger machine.name"
    )


def _nothing_affordable(recipe: Recipe, ways: Sequence[Way]) -> str:
    budget = recipe.budget
    cheapest = min(ways, key=lambda way: way.cost)
    fastest = min(ways, key=lambda way: way.seconds)
    wishes: list[str] = []
    if budget.usd is not None and cheapest.usd is not None and cheapest.usd > budget.usd:
        wishes.append(f"budget.usd: {_up(cheapest.usd):g} would do on {cheapest.job.machine.label}")
    if budget.hours is not None and fastest.seconds > budget.hours * 3600:
        wishes.append(f"budget.hours: {_up(fastest.seconds / 3600):g} would do on {fastest.job.machine.label}")
    if not wishes:
        wishes.append("no machine meets both; the cheapest takes"
                      f" {cheapest.seconds / 3600:.2f} hours, the fastest costs ${fastest.usd or 0:.2f}")  # fmt: skip
    return f"no plan fits the budget; {'; '.join(wishes)}"


def _up(value: float) -> float:
    """Rounded up to three digits, so that the wish named would really be met."""
    digits = 10 ** (2 - int(f"{value:e}".split("e")[1]))
    return ceil(value * digits) / digits


def _to_plan(recipe: Recipe, best: Way, ways: Sequence[Way], rejected: Counter[str], why: tuple[str, ...]) -> Plan:
    job = best.job
    padded = replace(job, packed_tokens=None)
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
        machine=machine_on_paper(job.machine),
        cuts=tuple(cut.to_dict() for cut in best.cuts),
        micro_batch_size=job.micro_rows,
        prediction=predict(job),
        considered=len(ways) + sum(rejected.values()),
        runners_up=_runners_up(best, ways),
        rejected=tuple(Rejected(reason=reason, count=count) for reason, count in rejected.most_common() if count),
        why=why,
        naive=predict(naive_job(job, recipe.train)),
        from_scratch=predict(job.uncut()),
    )


def machine_on_paper(machine: Machine) -> MachineOnPaper:
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
        guessed=machine.efficiency.guessed,
        efficiency_source=machine.efficiency.source,
    )


def _runners_up(best: Way, ways: Sequence[Way]) -> tuple[RunnerUp, ...]:
    """The cheapest way on each other machine, then other cuts on the chosen one; cheapest first."""
    here = best.job.machine.label
    cheapest: dict[tuple[str, ...], Way] = {}
    for way in ways:
        key = (
            (way.job.machine.label, *(cut.name for cut in way.cuts))
            if way.job.machine.label == here
            else (way.job.machine.label,)
        )
        if key not in cheapest or way.cost < cheapest[key].cost:
            cheapest[key] = way
    cheapest.pop((here, *(cut.name for cut in best.cuts)), None)
    ranked = sorted(cheapest.values(), key=lambda way: (way.job.machine.label == here, way.cost))[:RUNNERS_UP]
    return tuple(
        RunnerUp(
            machine=way.job.machine.label,
            cuts=tuple(cut.name for cut in way.cuts),
            total_seconds=way.seconds,
            usd=way.usd,
            peak_bytes=way.peak_bytes,
        )
        for way in ranked
    )
