"""Setting a baseline beside a run: the same rows, the real library, its own process, in the run's own receipt."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from pydantic import ValidationError

from tenfold.data import Dataset, Tokenizer, load_dataset
from tenfold.data.tokenize import target_bytes
from tenfold.errors import InputError
from tenfold.ledger import open_ledger, spent_row
from tenfold.planner import Plan, baseline_epochs
from tenfold.processes import check_alone
from tenfold.prove.baseline import run_naive, run_peer
from tenfold.prove.exchange import BaselineRequest, BaselineResult, write_rows
from tenfold.receipt import Baseline, Quality, Receipt
from tenfold.run.environment import this_hardware

Kind = Literal["naive", "peer"]

LABELS = {
    "naive": "transformers.Trainer, all weights, its defaults",
    "peer": "TRL SFTTrainer with PEFT LoRA, their defaults",
}


def prove_receipt(path: Path, kind: str, minutes: float | None) -> Receipt:
    """Run the baseline `kind` on the rows of the run whose receipt is at `path`, and write it into that receipt.

    It stops after `minutes` of training, if given; what is then extrapolated is labelled so. Raises InputError on an
    unknown kind, changed data, or a missing library.
    """
    if kind not in ("naive", "peer"):
        raise InputError(f"--baseline: found {kind!r}, expected naive or peer")
    check_alone()
    receipt = Receipt.read(path)
    try:
        plan = Plan.model_validate(receipt.plan)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(f"{path}: its plan is not one of this version (plan.{where}); train again") from None
    recipe = plan.recipe
    tokenizer = Tokenizer.from_transformers(recipe.model.name, recipe.model.revision)
    dataset = load_dataset(recipe, tokenizer, plan.shape.max_positions)
    if dataset.sha256 != receipt.data_sha256:
        raise InputError(f"{path}: its data has changed since the run; train again before comparing")
    result = measure_baseline(plan, dataset, tokenizer, kind, minutes)
    others = tuple(baseline for baseline in receipt.baselines if baseline.kind != kind)
    text_share = None if recipe.task == "classify" else _targets_per_byte(dataset, tokenizer)
    proven = receipt.model_copy(update={"baselines": (*others, to_baseline(kind, result, receipt, text_share))})
    receipt_sha256 = proven.write(path)
    with open_ledger(None if recipe.output.ledger is None else Path(recipe.output.ledger)) as ledger:
        ledger.append(spent_row(proven, path, receipt_sha256))  # the receipt is not the one that was billed any more
    return proven


def measure_baseline(
    plan: Plan, dataset: Dataset, tokenizer: Tokenizer, kind: Kind, minutes: float | None
) -> BaselineResult:
    """Run one baseline in its own process, on the plan's rows and for its epochs, as the plan foretold."""
    recipe = plan.recipe
    pad_id = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id
    with TemporaryDirectory(prefix="tenfold-rows-") as name:
        train, evaluation = Path(name) / "train.jsonl", Path(name) / "eval.jsonl"
        write_rows(train, dataset.train)
        write_rows(evaluation, dataset.evaluation)
        request = BaselineRequest(
            model=recipe.model.name,
            revision=recipe.model.revision,
            task=recipe.task,
            train_rows=train,
            eval_rows=evaluation if dataset.evaluation else None,
            pad_id=pad_id or 0,
            labels=len(dataset.labels) or None,
            epochs=baseline_epochs(recipe.train, len(dataset.train)),
            seed=recipe.train.seed,
            max_seconds=None if minutes is None else 60 * minutes,
        )
        return run_naive(request) if kind == "naive" else run_peer(request)


def _targets_per_byte(dataset: Dataset, tokenizer: Tokenizer) -> float | None:
    """Tokens that bear loss per byte of text, by which losses of different vocabularies compare."""
    count = sum(sum(sample.loss_mask or b"") for sample in dataset.evaluation)
    return count / max(1, target_bytes(dataset.evaluation, tokenizer)) if count else None


def to_baseline(
    kind: Kind, result: BaselineResult, receipt: Receipt, targets_per_byte: float | None = None
) -> Baseline:
    """What a baseline measured, as a receipt holds it. Quality only if it trained to its end."""
    price = receipt.bill.usd_per_hour
    finished = result.measured_fraction >= 1
    settings = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    notes = [result.how, *result.notes, *([f"set: {settings}"] if settings else [])]
    quality = _quality(result, receipt, targets_per_byte)
    return Baseline(
        kind=kind,
        label=LABELS[kind],
        how="measured" if finished else "extrapolated",
        measured_fraction=min(1.0, result.measured_fraction),
        versions=dict(result.versions),
        tokens=float(result.useful_tokens),
        train_seconds=result.full_train_seconds,
        wall_seconds=result.full_seconds,
        peak_memory_bytes=None if result.peak_bytes is None else float(result.peak_bytes),
        idle_memory_bytes=None if result.idle_bytes is None else float(result.idle_bytes),
        usd=None if price is None else result.full_seconds / 3600 * price,
        quality=quality if finished else (),
        stopped_quality=() if finished else quality,
        note="; ".join(note.rstrip(".") for note in notes),
        hardware=this_hardware(receipt.hardware.machine, torch.device(result.device)),
        data_sha256=receipt.data_sha256,
        base_sha256=receipt.base_sha256,
    )


def _quality(result: BaselineResult, receipt: Receipt, targets_per_byte: float | None) -> tuple[Quality, ...]:
    """Where a warm start has changed the run's vocabulary, losses compare by the byte alone."""
    scores = result.scores
    if scores is None:
        return ()
    rows = next((item.rows for item in receipt.quality if item.rows), None)
    same_tokens = receipt.task == "classify" or receipt.plan.get("vocabulary") is None
    found = [Quality(metric="loss", value=scores.loss, rows=rows)] if same_tokens else []
    if targets_per_byte is not None:
        found.append(Quality(metric="loss_per_byte", value=scores.loss * targets_per_byte, rows=rows))
    if scores.accuracy is not None and rows:
        found.append(Quality.accuracy(round(scores.accuracy * rows), rows))
    if scores.macro_f1 is not None:
        found.append(Quality(metric="macro_f1", value=scores.macro_f1, rows=rows))
    return tuple(found)
