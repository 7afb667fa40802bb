"""Executing a plan: from its recipe to a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from tenfold.cuts import FineTune, WarmStart, cut_from_dict, on_rig
from tenfold.data import Dataset, Tokenizer, check_vocabulary, load_dataset
from tenfold.errors import BudgetReached, InputError, Interrupted, OutOfMemory, Preempted, TenfoldError
from tenfold.ledger import Ledger, Row, open_ledger, spent_row
from tenfold.planner import Plan
from tenfold.receipt import Receipt, Status
from tenfold.recipe import BaselineWish, Budget, Output, Recipe, recipe_sha256
from tenfold.rig.model import build_rig, initialise
from tenfold.rig.out_of_memory import ran_out_of_memory
from tenfold.rig.rig import Rig, Source
from tenfold.rig.warm.start import with_new_blocks
from tenfold.run.account import make_receipt, run_id
from tenfold.run.base import changed_base, named_base
from tenfold.run.checkpoint import newest_state
from tenfold.run.events import Observer
from tenfold.run.lock import OutputLock, claim_output, drop_claim
from tenfold.run.loop import train_steps
from tenfold.run.meter import Meter
from tenfold.run.optimizer import make_optimizer
from tenfold.run.run import Run
from tenfold.run.schedule import make_schedule
from tenfold.run.stop import StopRequest
from tenfold.run.trackers import check_tracker, make_tracker


def train(plan: Plan, observers: Sequence[Observer] = ()) -> Receipt:
    """Execute `plan`, or continue it where its output folder stopped; write the receipt and a ledger row.

    Raises BudgetReached, Preempted or Interrupted after saving a checkpoint, NotFinite before a poisoned update,
    OutOfMemory, or InputError; the receipt of an unfinished run is written all the same.
    """
    recipe = plan.settled
    folder = Path(recipe.output.folder)
    started_at = datetime.now(UTC)
    _check_possible(plan)
    fresh = claim_output(folder, _identity(recipe))
    with OutputLock(folder, run_id(plan)), StopRequest() as stop:
        run: Run | None = None
        try:
            run = _prepare(plan, folder, stop, observers)
            status = _train(run)
            run.measure_retention()
        except InputError:
            trained = run is not None and run.progress.step > 0
            if fresh and not trained:  # so that a corrected recipe may use the same folder
                drop_claim(folder)
            raise
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            raise OutOfMemory(_out_of_memory(device_of(plan), error)) from error
        receipt = make_receipt(plan, run, status, started_at)
        receipt_sha256 = receipt.write(folder / "receipt.json")
        _book(recipe, spent_row(receipt, folder / "receipt.json", receipt_sha256))
        run.tell("finished", {"text": f"{status}: {folder / 'receipt.json'}"})
    if run.ended_because is not None:
        raise _unfinished(run)
    return receipt


def _check_possible(plan: Plan) -> None:
    """What would otherwise show only after the money is spent, or make a false bill. Raises InputError."""
    _open_ledger(plan.recipe).close()
    for name in plan.recipe.output.trackers:
        check_tracker(name)
    if plan.machine.vendor_kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"machine: the plan is for {plan.machine.label}, but torch finds no GPU here; train there, or plan for"
            " machine.name: local"
        )


def _identity(recipe: Recipe) -> str:
    """The hash of what decides the weights: a run may be continued with another budget, output or baseline."""
    train = recipe.train.model_copy(update={"keep_checkpoints": 1, "log_every_steps": 1, "save_every_steps": None})
    plain = {"budget": Budget(), "output": Output(), "baseline": BaselineWish(), "train": train}
    return recipe_sha256(recipe.model_copy(update=plain))


def _book(recipe: Recipe, row: Row) -> None:
    with _open_ledger(recipe) as ledger:
        ledger.append(row)


def _open_ledger(recipe: Recipe) -> Ledger:
    return open_ledger(None if recipe.output.ledger is None else Path(recipe.output.ledger))


def device_of(plan: Plan) -> torch.device:
    """Where this process trains: the GPU if there is one and the plan is not for a CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and plan.machine.vendor_kind == "cuda" else "cpu")


def dtype_of(plan: Plan) -> torch.dtype:
    """What matrix products compute in."""
    return torch.bfloat16 if plan.machine.dtype == "bfloat16" else torch.float32


def _prepare(plan: Plan, folder: Path, stop: StopRequest, observers: Sequence[Observer]) -> Run:
    """Tokenise, build the rig, apply the cuts, and find the checkpoint to continue from."""
    recipe = plan.settled
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source = Source(recipe.model.name, recipe.model.revision)
    build_rig(source, recipe.task)  # imports the model's code, which idle memory counts among the libraries
    meter = Meter(device_of(plan), plan.machine.usd_per_hour)
    cut = next((one for one in map(cut_from_dict, plan.cuts) if isinstance(one, WarmStart)), None)
    if cut is None:
        with meter.part("load"):
            base = named_base(recipe)
    else:
        with meter.part("warm_start"):
            base = changed_base(recipe, cut, folder / "base", meter.device, dtype_of(plan))
    source = base.source
    with meter.part("tokenise"):
        tokenizer = Tokenizer.from_transformers(source.name, source.revision)
        dataset = load_dataset(recipe, tokenizer, plan.shape.max_positions)
        check_vocabulary((*dataset.train, *dataset.evaluation), tokenizer, plan.shape.vocab_size, source.name)
    with meter.part("load"):
        torch.manual_seed(recipe.train.seed)
        rig = _build(plan, source, dataset, tokenizer, meter.device)
    schedule = make_schedule(recipe.train, len(dataset.train), learning_rate(recipe, rig.adapter is not None), cut)
    run = Run(
        recipe, dataset, rig, schedule, meter,
        folder=folder, base=base, stop=stop, observers=observers,
    )  # fmt: skip
    for fact in rig.facts:
        run.tell("note", {"text": fact})
    return run


def _build(plan: Plan, source: Source, dataset: Dataset, tokenizer: Tokenizer, device: torch.device) -> Rig:
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


def learning_rate(recipe: Recipe, lora: bool) -> float:
    """The recipe's rate, or by method: 2e-5 (text) and 5e-5 (labels) for all weights, ten times that for adapters.

    Ten is the ratio found in "LoRA Without Regret" (Thinking Machines, 2025); 5e-5 is transformers' default.
    """
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    full = 5e-5 if recipe.task == "classify" else 2e-5
    return 10 * full if lora else full


def _train(run: Run) -> Status:
    run.optimizer = make_optimizer(run.rig, run.recipe.train)
    saved = newest_state(run.folder / "checkpoints")
    if saved is not None:
        if saved.state["data_sha256"] != run.dataset.sha256:
            raise InputError(f"{run.folder}: its checkpoint was trained on other data; name a new output.folder")
        run.restore(saved)
    # Last of all that may refuse: a tracker leaves a folder behind, or a run on somebody's server.
    run.observers = [*run.observers, *_trackers(run)]
    wish = run.recipe.train
    with run.meter.part("train"):
        train_steps(
            run.rig,
            run.dataset.train,
            run.schedule,
            run.optimizer,
            first_step=run.progress.step,
            max_gradient_norm=wish.max_grad_norm,
            after_step=run.after_step,
            tell=lambda text: run.note("out_of_memory", text),
        )
    if run.ended_because is None:
        run.export("last")
        run.save()
        return "done"
    return {"budget": "stopped_at_budget", "SIGINT": "interrupted"}.get(run.ended_because, "preempted")  # type: ignore[return-value]


def _trackers(run: Run) -> list[Observer]:
    settings = run.recipe.train.model_dump()
    return [make_tracker(name, run.folder.name, run.folder, settings) for name in run.recipe.output.trackers]


def _unfinished(run: Run) -> TenfoldError:
    where = f"step {run.progress.step} of {run.schedule.total_steps}, checkpoint saved in {run.folder}"
    again = "run the same `tenfold train` to continue"
    if run.ended_because == "budget":
        return BudgetReached(f"budget reached at {where}; raise it and {again}")
    if run.ended_because == "SIGINT":
        return Interrupted(f"interrupted at {where}; {again}")
    return Preempted(f"{run.ended_because} at {where}; {again}")


def _out_of_memory(device: torch.device, error: Exception) -> str:
    what = str(error).splitlines()[0]
    return (
        f"out of memory on {device}: {what}. Set train.micro_batch_size or cuts.pack.tokens lower, or"
        " cuts.checkpoint: full"
    )
