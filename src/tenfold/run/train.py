"""Executing a plan: from its recipe to a receipt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from tenfold.checks import Paper, check_paper, refuse
from tenfold.checks.paper import EXAMPLES
from tenfold.checks.preflight import check_rig
from tenfold.cuts import FineTune, WarmStart, cut_from_dict, on_rig
from tenfold.data import Dataset, Tokenizer, first_examples, load_dataset
from tenfold.durable import remove_folder
from tenfold.errors import BudgetReached, InputError, Interrupted, LossSpike, OutOfMemory, Preempted, TenfoldError
from tenfold.export.base_hash import BaseHash, model_folder
from tenfold.ledger import Ledger, open_ledger, spent_row
from tenfold.planner import Plan
from tenfold.receipt import Finding, Receipt, Status
from tenfold.recipe import Recipe, training_sha256
from tenfold.rig.model import build_rig, initialise
from tenfold.rig.out_of_memory import ran_out_of_memory
from tenfold.rig.rig import Rig, Source
from tenfold.rig.warm.start import with_new_blocks
from tenfold.run.account import make_receipt, run_id
from tenfold.run.base import changed_base, named_base
from tenfold.run.checkpoint import SavedState, newest_state
from tenfold.run.events import Observer
from tenfold.run.lock import CLAIM, OutputLock, claim_output, drop_claim
from tenfold.run.loop import train_steps
from tenfold.run.meter import Meter
from tenfold.run.optimizer import make_optimizer
from tenfold.run.run import Run
from tenfold.run.schedule import make_schedule
from tenfold.run.stop import StopRequest
from tenfold.run.trackers import check_tracker, make_tracker


def train(
    plan: Plan,
    observers: Sequence[Observer] = (),
    *,
    age_seconds: float = 0.0,
    weights_hash: BaseHash | None = None,
) -> Receipt:
    """Execute `plan`, or continue it where its output folder stopped; write the receipt and a ledger row.

    A run that is finished is not run again: its receipt comes back as it is. `age_seconds`: how long what is billed has
    been going on already; `weights_hash`: that of the named model, where it was begun before. Raises BudgetReached,
    LossSpike, Preempted or Interrupted after saving a checkpoint (the last two at once while it loads), NotFinite
    before a poisoned update, OutOfMemory, or InputError; but for the last, a run that began leaves a receipt and a row.
    """
    folder = Path(plan.recipe.output.folder)
    started_at = datetime.now(UTC)
    _check_possible(plan)
    fresh = claim_output(folder, training_sha256(plan.recipe))
    with OutputLock(folder, run_id(plan)), StopRequest() as stop:
        run: Run | None = None
        try:
            saved = newest_state(folder / "checkpoints")
            plan = _as_it_began(plan, saved)
            with stop.at_once():
                run = _prepare(plan, folder, stop, observers, age_seconds, weights_hash, fresh=saved is None)
            if saved is not None:
                _check_saved(run, saved)
                if (finished := _finished(run, saved)) is not None:
                    return finished
            status = _train(run, saved)
        except InputError:
            trained = run is not None and run.progress.step > 0
            if fresh and not trained:  # so that a corrected recipe may use the same folder
                remove_folder(folder / "base")
                drop_claim(folder)
            raise
        except (TenfoldError, RuntimeError, MemoryError) as error:
            failure = _failure(plan, error)
            if run is not None and (folder / CLAIM).is_file():
                with suppress(TenfoldError):  # a disk that took no checkpoint may take no receipt either
                    _account(plan, run, "failed", started_at)
            raise failure from error
        receipt = _account(plan, run, status, started_at)
    if run.ended_because is not None:
        raise _unfinished(run)
    return receipt


def _account(plan: Plan, run: Run, status: Status, started_at: datetime) -> Receipt:
    """The receipt of a run, written, and its row in the ledger."""
    run.note_spent(now=True)
    path = run.folder / "receipt.json"
    receipt = make_receipt(plan, run, status, started_at)
    receipt_sha256 = receipt.write(path)
    with _open_ledger(plan.recipe) as ledger:
        ledger.append(spent_row(receipt, path, receipt_sha256))
    run.tell("finished", {"text": f"{status}: {path}"})
    return receipt


def _failure(plan: Plan, error: TenfoldError | RuntimeError | MemoryError) -> TenfoldError:
    """The error as the user sees it; one that is neither the user's nor a lack of memory is raised as it is."""
    if isinstance(error, TenfoldError):
        return error
    if ran_out_of_memory(error):
        return OutOfMemory(_out_of_memory(device_of(plan), error))
    raise error


def _check_possible(plan: Plan) -> None:
    """What would otherwise show only after the money is spent, or make a false bill. Raises InputError."""
    for cut in plan.cuts:
        cut_from_dict(cut)
    _open_ledger(plan.recipe).close()
    for name in plan.recipe.output.trackers:
        check_tracker(name)
    if plan.machine.vendor_kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"machine: the plan is for {plan.machine.label}, but torch finds no GPU here; train there, or plan for"
            " machine.name: local"
        )


def _settled(plan: Plan) -> dict[str, Any]:
    """What a continued run keeps of the plan that it began with."""
    return {
        "cuts": list(plan.cuts),
        "micro_batch_size": plan.micro_batch_size,
        "optimizer": plan.optimizer,
        "dtype": plan.machine.dtype,
    }


def _as_it_began(plan: Plan, saved: SavedState | None) -> Plan:
    """The plan with what an interrupted run was made of: another day's plan may price other cuts lower."""
    if saved is None:
        return plan
    kept = saved.state["settled"]
    machine = plan.machine.model_copy(update={"dtype": kept["dtype"]})
    update = {name: kept[name] for name in ("micro_batch_size", "optimizer")}
    return plan.model_copy(update={**update, "cuts": tuple(kept["cuts"]), "machine": machine})


def _check_saved(run: Run, saved: SavedState) -> None:
    """Raises InputError where the state belongs to other rows or another base."""
    for name, found, what in (
        ("data_sha256", run.dataset.sha256, "on other data"),
        ("base_sha256", run.base.hash.sha256, "from other weights"),
    ):
        if saved.state[name] != found:
            raise InputError(f"{run.folder}: its checkpoint was trained {what}; name a new output.folder")


def _check_rows(plan: Plan, dataset: Dataset, tokenizer: Tokenizer, model: str) -> tuple[Finding, ...]:
    """What rows and tokenizer tell before weights are read. Raises InputError where it is plain nonsense."""
    examples = first_examples(plan.recipe, EXAMPLES)
    findings = check_paper(Paper(plan.recipe.task, dataset, tokenizer, plan.shape.vocab_size, model, examples))
    refuse(findings)
    return findings


def _preflight(run: Run, on_rows: Sequence[Finding]) -> None:
    """Check the model too, before the first step; what is doubtful is said and kept. Raises InputError."""
    with run.meter.part("check"):
        findings = (*on_rows, *check_rig(run.rig, run.dataset.train))
    run.progress.checks = [finding.model_dump() for finding in findings]
    for finding in findings:
        if finding.verdict == "warning":
            run.tell("note", {"text": f"check {finding.check}: {finding.text}"})
    refuse(findings)


def _finished(run: Run, saved: SavedState) -> Receipt | None:
    """The receipt of a run that has nothing left to do."""
    path = run.folder / "receipt.json"
    if saved.step < run.schedule.total_steps or not path.is_file():
        return None
    receipt = Receipt.read(path)
    if receipt.status != "done":
        return None
    with _open_ledger(run.recipe) as ledger:
        receipt_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if all(entry.row.receipt_sha256 != receipt_sha256 for entry in ledger.rows()):
            # Killed between the two: the receipt is written first, since a row names its hash.
            ledger.append(spent_row(receipt, path, receipt_sha256))
    run.tell("finished", {"text": f"finished before: {path}"})
    return receipt


def _open_ledger(recipe: Recipe) -> Ledger:
    return open_ledger(None if recipe.output.ledger is None else Path(recipe.output.ledger))


def device_of(plan: Plan) -> torch.device:
    """Where this process trains: the GPU if there is one and the plan is not for a CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and plan.machine.vendor_kind == "cuda" else "cpu")


def dtype_of(plan: Plan) -> torch.dtype:
    """What matrix products compute in."""
    return torch.bfloat16 if plan.machine.dtype == "bfloat16" else torch.float32


def _prepare(
    plan: Plan,
    folder: Path,
    stop: StopRequest,
    observers: Sequence[Observer],
    age_seconds: float,
    weights_hash: BaseHash | None,
    *,
    fresh: bool,
) -> Run:
    """Tokenise, build the rig and apply the cuts. A fresh run is checked for nonsense; a continued one keeps what was
    found when it began."""
    recipe = plan.settled
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source = Source(recipe.model.name, recipe.model.revision)
    build_rig(source, recipe.task)  # imports the model's code, which idle memory counts among the libraries
    meter = Meter(device_of(plan), plan.machine.usd_per_hour, age_seconds)
    cuts = [cut_from_dict(one) for one in plan.cuts]
    cut = next((one for one in cuts if isinstance(one, WarmStart)), None)
    if cut is None:
        with meter.part("load"):
            for one in cuts:
                one.begin(meter.device)
            base = named_base(recipe, weights_hash)
    else:
        with meter.part("warm_start"):
            base = changed_base(recipe, cut, folder / "base", meter.device, dtype_of(plan), weights_hash)
    source = base.source
    with meter.part("tokenise"):
        tokenizer = Tokenizer.from_transformers(source.name, source.revision)
        dataset = load_dataset(recipe, tokenizer, plan.shape.max_positions)
    with meter.part("check"):
        findings = _check_rows(plan, dataset, tokenizer, source.name) if fresh else ()
    with meter.part("load"):
        torch.manual_seed(recipe.train.seed)
        rig = _build(plan, source, dataset, tokenizer, meter.device)
    schedule = make_schedule(recipe.train, len(dataset.train), learning_rate(recipe, rig.adapter is not None), cut)
    run = Run(
        recipe, dataset, rig, schedule, meter,
        folder=folder, base=base, stop=stop, observers=observers,
    )  # fmt: skip
    run.settled = _settled(plan)
    for fact in rig.facts:
        run.tell("note", {"text": fact})
    if fresh:
        _preflight(run, findings)
    return run


def _build(plan: Plan, source: Source, dataset: Dataset, tokenizer: Tokenizer, device: torch.device) -> Rig:
    """The model of `source` with the cuts of the plan on it."""
    cuts = [cut_from_dict(cut) for cut in plan.cuts]
    rig = build_rig(
        source,
        plan.recipe.task,
        labels=dataset.labels,
        device=device,
        micro_batch_rows=plan.micro_batch_size,
        dropout=plan.recipe.train.dropout,
        dtype=dtype_of(plan),
        pad_id=tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id,
    )
    if not any(isinstance(cut, FineTune) for cut in cuts):
        rig = initialise(rig)
    return on_rig(cuts, with_new_blocks(replace(rig, tokenizer=tokenizer)))


def checked_model(plan: Plan, dataset: Dataset, tokenizer: Tokenizer, limit_seconds: float) -> tuple[Finding, ...]:
    """What the checks say of the planned model, built for them alone. Raises InputError where it cannot be built."""
    recipe = plan.recipe
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    started = time.monotonic()
    torch.manual_seed(recipe.train.seed)
    source = Source(recipe.model.name, recipe.model.revision)
    model_folder(source.name, source.revision)  # what has to be downloaded is held to what was declared
    rig = _build(plan, source, dataset, tokenizer, device_of(plan))
    return check_rig(rig, dataset.train, limit_seconds - (time.monotonic() - started))


def learning_rate(recipe: Recipe, lora: bool) -> float:
    """The recipe's rate, or by method: 2e-5 (text) and 5e-5 (labels) for all weights, ten times that for adapters.

    Ten is the ratio found in "LoRA Without Regret" (Thinking Machines, 2025); 5e-5 is transformers' default.
    """
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    full = 5e-5 if recipe.task == "classify" else 2e-5
    return 10 * full if lora else full


def _train(run: Run, saved: SavedState | None) -> Status:
    run.optimizer = make_optimizer(run.rig, run.recipe.train)
    if saved is not None:
        run.restore(saved)
    run.add_earlier()
    # Last of all that may refuse: a tracker leaves a folder behind, or a run on somebody's server.
    run.observers = [*run.observers, *_trackers(run)]
    run.note_spent(now=True)
    _begin(run)
    if run.ended_because is None:
        with run.meter.part("train"):
            train_steps(
                run.rig,
                run.dataset.train,
                run.schedule,
                run.optimizer,
                first_step=run.progress.step,
                max_gradient_norm=run.recipe.train.max_grad_norm,
                admit=run.admit,
                after_step=run.after_step,
                tell=lambda text: run.note("smaller_step", text),
            )
    if run.ended_because is None:
        run.export("last")
        run.save()
        run.measure_retention()
        return "done"
    statuses: dict[str, Status] = {
        "budget": "stopped_at_budget",
        "SIGINT": "interrupted",
        "loss_spike": "failed",
    }
    return statuses.get(run.ended_because, "preempted")


def _begin(run: Run) -> None:
    """Do what an earlier attempt left undone at this step, and stop where there is nothing to spend on another."""
    run.ended_because = run.evaluate() if run.evaluation_owed() else None
    if run.ended_because is None and run.progress.step < run.schedule.total_steps:
        run.ended_because = run.why_stop(0.0)
    if run.ended_because is not None:
        run.save()


def _trackers(run: Run) -> list[Observer]:
    settings = run.recipe.train.model_dump()
    return [make_tracker(name, run.folder.name, run.folder, settings) for name in run.recipe.output.trackers]


def _unfinished(run: Run) -> TenfoldError:
    where = f"step {run.progress.step} of {run.schedule.total_steps}, checkpoint saved in {run.folder}"
    again = "run the same `tenfold train` to continue"
    if run.ended_because == "budget":
        return BudgetReached(f"budget reached at {where}; raise it and {again}")
    if run.ended_because == "loss_spike":
        spike = next(event["text"] for event in reversed(run.progress.events) if event["kind"] == "loss_spike")
        return LossSpike(f"{spike}. Stopped behind it at {where}; look at these rows, and {again} without them")
    if run.ended_because == "SIGINT":
        return Interrupted(f"interrupted at {where}; {again}")
    return Preempted(f"{run.ended_because} at {where}; {again}")


def _out_of_memory(device: torch.device, error: Exception) -> str:
    what = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"out of memory on {device}: {what}. Set train.micro_batch_size or cuts.pack.tokens lower, or"
        " cuts.checkpoint: full"
    )
