"""Every combination priced, each with the checkpoint that is solved for its machine; the cheapest that meets the
wishes is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from tenfold.cuts import Checkpoint
from tenfold.errors import InputError, NoPlanFits
from tenfold.job import Job
from tenfold.machine import Machine
from tenfold.planner.capable import capable
from tenfold.planner.choice import Choice, best, within
from tenfold.planner.forced import check_forced
from tenfold.planner.options import checkpoint_wish, optimizer_options
from tenfold.planner.plan import Plan
from tenfold.planner.quality import QualityEvidence, consent, quality_evidence, withhold
from tenfold.planner.reasons import Known, explain_cuts
from tenfold.planner.way import Way
from tenfold.planner.ways import least_bytes, priced_ways
from tenfold.planner.written import write_plan
from tenfold.recipe import Recipe
from tenfold.shape import Shape
from tenfold.workload import Workload


def make_plan(
    recipe: Recipe,
    shape: Shape,
    workload: Workload,
    machines: Sequence[Machine],
    evidence: QualityEvidence | None = None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """The cheapest combination of cuts and machines that fits memory, budget and deadline.

    Approximate cuts that the recipe leaves open are taken only on `evidence`; None is what tenfold ships. `notes` are
    what the reader has to know besides. Raises InputError if a forced cut cannot work or a budget in dollars has no
    price, NoPlanFits naming the nearest wish that can be met.
    """
    if recipe.budget.usd is not None and any(machine.usd_per_hour is None for machine in machines):
        raise InputError(
            "budget.usd: this machine has no price; set machine.usd_per_hour or --price, or budget.hours instead"
        )
    machines = capable(recipe, machines)
    dense = dense_job(recipe, shape, workload, machines[0])
    able = next((machine for machine in machines if machine.vendor_kind == "cuda"), machines[0])
    check_forced(recipe, replace(dense, machine=able))
    evidence = quality_evidence() if evidence is None else evidence
    allowed, withheld = withhold(recipe, evidence)
    try:
        choice = _choose(allowed, dense, machines)
    except NoPlanFits as error:
        raise NoPlanFits(f"{error}{_with_consent(recipe, withheld, dense, machines)}") from None
    layers = choice.best.job.shape.layers
    wish = checkpoint_wish(recipe, layers)
    checkpoint = wish if isinstance(wish, Checkpoint) else Checkpoint(layers)
    why = explain_cuts(choice.best, choice.affordable, checkpoint, Known(recipe.task, evidence, withheld))
    return write_plan(recipe, choice, why, notes)


def _choose(recipe: Recipe, dense: Job, machines: Sequence[Machine]) -> Choice:
    rejected: Counter[str] = Counter()
    fitting = priced_ways(recipe, dense, machines, rejected)
    if not fitting:
        raise NoPlanFits(_nothing_fits(recipe, dense, machines))
    affordable = [way for way in fitting if within(recipe.budget, way)]
    rejected["over the budget or the deadline"] = len(fitting) - len(affordable)
    if not affordable:
        raise NoPlanFits(_nothing_affordable(recipe, fitting))
    return Choice(best(affordable), affordable, fitting, rejected)


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


def dense_job(recipe: Recipe, shape: Shape, workload: Workload, machine: Machine) -> Job:
    """The recipe's run with no cut."""
    train = recipe.train
    per_epoch = ceil(workload.rows / train.batch_size)
    steps = train.max_steps or ceil(train.epochs * per_epoch)
    every = train.eval_every_steps or per_epoch
    if train.dropout is not None:  # what has none by its configuration has no place for it either
        shape = replace(
            shape, attention_dropout=train.dropout, hidden_dropout=train.dropout if shape.hidden_dropout else 0.0
        )
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
        optimizer=optimizer_options(recipe)[0],
        evaluations=ceil(steps / every) if workload.evaluation_tokens else 0,
        save_every_steps=train.save_every_steps,
    )


def _nothing_fits(recipe: Recipe, dense: Job, machines: Sequence[Machine]) -> str:
    largest = max(machines, key=lambda machine: machine.memory_bytes)
    least = least_bytes(recipe, replace(dense, machine=largest)) / (1 - largest.memory_margin)
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
