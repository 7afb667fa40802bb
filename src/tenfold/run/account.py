"""From a finished run to its receipt."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from tenfold.cuts import cut_from_dict
from tenfold.planner import Plan
from tenfold.receipt import (
    Bill,
    CurvePoint,
    CutUsed,
    Event,
    Finding,
    Measured,
    Part,
    Quality,
    QualityGoal,
    QuantityName,
    Receipt,
    Retention,
    Status,
    Unit,
)
from tenfold.recipe import recipe_sha256, training_sha256
from tenfold.run.environment import package_versions, this_hardware
from tenfold.run.run import Run


def make_receipt(plan: Plan, run: Run, status: Status, started_at: datetime) -> Receipt:
    """The receipt of `run`: predictions from the plan, measurements from the meter."""
    recipe, progress, meter = plan.recipe, run.progress, run.meter
    return Receipt(
        run_id=run_id(plan),
        name=run.folder.name,
        status=status,
        model=recipe.model.name,
        task=recipe.task,
        tags=recipe.output.tags,
        started_at=started_at,
        ended_at=datetime.now(UTC),
        plan=plan.model_dump(mode="json"),
        recipe_sha256=recipe_sha256(recipe),
        data_sha256=run.dataset.sha256,
        base_sha256=run.base.named_hash.sha256,
        versions=package_versions(),
        hardware=this_hardware(plan.machine.name, run.rig.device),
        seed=recipe.train.seed,
        measurements=_measurements(plan, run),
        seconds_by_part=cast("dict[Part, float]", meter.seconds_by_part),
        curve=tuple(CurvePoint(**point) for point in progress.curve),
        quality=_quality(run),
        goal=None if recipe.quality is None else QualityGoal(**recipe.quality.model_dump()),
        retention=_retention(run),
        bill=_bill(plan, run),
        data=run.dataset.account.model_dump(mode="json"),
        evaluation_data=run.dataset.eval_account.model_dump(mode="json"),
        checks=tuple(Finding.model_validate(found) for found in progress.checks),
        cuts=_cuts(plan, run),
        events=tuple(
            Event(at=datetime.fromisoformat(event["at"]), kind=event["kind"], text=event["text"])  # type: ignore[arg-type]
            for event in progress.events
        ),
        resumes=progress.resumes,
    )


def run_id(plan: Plan) -> str:
    """The same for every attempt of a run: a hash of what decides its weights, and of its output folder."""
    identity = f"{training_sha256(plan.recipe)} {Path(plan.recipe.output.folder).resolve()}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _measurements(plan: Plan, run: Run) -> tuple[Measured, ...]:
    foretold, progress, meter = plan.prediction, run.progress, run.meter
    peak_bytes = foretold.peak_bytes
    if plan.machine.vendor_kind == "cuda":
        # The meter reads what torch has allocated there: not the CUDA context, nor what torch holds and has not given.
        peak_bytes -= foretold.bytes_by_kind["libraries"] + foretold.bytes_by_kind["fragmentation"]
    price = plan.machine.usd_per_hour
    usd = None if price is None else foretold.process_seconds / 3600 * price
    rows: list[tuple[QuantityName, Unit, float | None, float | None]] = [
        ("peak_memory_bytes", "bytes", peak_bytes, meter.peak_bytes),
        ("idle_memory_bytes", "bytes", None, meter.idle_bytes),
        ("train_seconds", "seconds", foretold.train_seconds, progress.train_seconds),
        ("wall_seconds", "seconds", foretold.process_seconds, meter.wall_seconds),
        ("steps", "steps", foretold.steps, progress.step),
        ("tokens", "tokens", foretold.tokens, progress.tokens),
        ("loss_tokens", "tokens", None, progress.loss_tokens),
        ("usd", "usd", usd, meter.usd),
    ]
    return tuple(
        Measured(name=name, unit=unit, predicted=_float(predicted), measured=_float(measured))
        for name, unit, predicted, measured in rows
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _quality(run: Run) -> tuple[Quality, ...]:
    """The metrics of the best evaluation, accuracy with its interval."""
    points = [point for point in run.progress.curve if point.get("metrics")]
    chosen: dict[str, Any] | None = next((p for p in points if p["step"] == run.progress.best_step), None)
    if chosen is None:
        return ()
    rows = len(run.dataset.evaluation)
    qualities: list[Quality] = []
    for metric, value in chosen["metrics"].items():
        if metric == "accuracy":
            qualities.append(Quality.accuracy(round(value * rows), rows))
        elif math.isfinite(value):  # of a run that diverged the others are still worth knowing
            qualities.append(Quality(metric=metric, value=value, rows=rows))
    return tuple(qualities)


def _retention(run: Run) -> Retention | None:
    domain = run.base.old_domain
    if domain is None:
        return None
    return Retention(
        source=domain.source,
        texts=len(domain.texts),
        unit=domain.unit,
        before=domain.before,
        start=domain.start,
        after=run.retained,
    )


def _bill(plan: Plan, run: Run) -> Bill:
    usd, tokens, budget = run.meter.usd, run.progress.tokens, plan.recipe.budget
    return Bill(
        usd=usd,
        usd_per_hour=plan.machine.usd_per_hour,
        price_source=plan.machine.price_source,
        price_date=plan.machine.price_date,
        billed_seconds=run.meter.wall_seconds,
        usd_per_million_tokens=None if usd is None or not tokens else usd / tokens * 1e6,
        budget_usd=budget.usd,
        budget_hours=budget.hours,
    )


def _cuts(plan: Plan, run: Run) -> tuple[CutUsed, ...]:
    cuts = [cut_from_dict(cut) for cut in plan.cuts]
    return tuple(
        CutUsed(
            name=cut.name,
            exact=cut.exact,
            facts=tuple(
                fact.removeprefix(f"{cut.name}: ") for fact in run.rig.facts if fact.startswith(f"{cut.name}:")
            ),
        )
        for cut in cuts
    )
