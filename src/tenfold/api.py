"""The Python interface: plan, train, apply."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.checks import LIMIT_SECONDS, Checked, Paper, check_paper
from tenfold.checks.paper import EXAMPLES
from tenfold.checks.preflight import left_out
from tenfold.data import (
    Dataset,
    Tokenizer,
    check_vocabulary,
    first_examples,
    load_dataset,
    preview,
    read_tokenizer,
)
from tenfold.data.guess import guess_task
from tenfold.errors import InputError
from tenfold.export.base_hash import BaseHash
from tenfold.job.fit import learned
from tenfold.ledger import Row, default_ledger_path, feedback, open_ledger
from tenfold.machine import MEMORY_MARGIN, Machine, find_machines, fresh_prices
from tenfold.planner import Plan, VocabularySizes, check_warm_start, compare_sizes, make_plan, plan_vocabulary
from tenfold.processes import check_alone
from tenfold.recipe import Recipe, WarmStartWish, load_recipe, recipe_from_dict
from tenfold.shape import Shape, read_shape
from tenfold.workload import Workload

MOST_READ_BYTES = 8 * 2**30
"""In float32, what a CPU reads, multiplies four rows by and differentiates within a minute: 2B parameters."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tenfold.cuts import Cut
    from tenfold.receipt import Receipt
    from tenfold.rig.rig import Rig, Task
    from tenfold.run.events import Observer


def plan(
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    model: str | None = None,
    data: str | Sequence[str] | None = None,
    task: str | None = None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Price every combination of cuts and machines for a recipe, on the real token lengths of its data.

    `recipe` is a file, a mapping with a recipe's keys, or a Recipe; without one, `model` and `data` will do, and `task`
    follows from the columns. `overrides` are "key.subkey=value" texts, `notes` go into the plan. Imports no torch.
    Raises InputError on a bad recipe or bad data, NoPlanFits when nothing meets the wishes.
    """
    return _planned(_wishes(recipe, overrides, model, data, task), notes)[0]


def _planned(wishes: Recipe, notes: tuple[str, ...] = ()) -> tuple[Plan, Dataset, Tokenizer]:
    """The plan, and the rows that it was made for."""
    machines = find_machines(wishes.machine, wishes.train.dtype)
    if wishes.machine.usd_per_hour is not None and "auto" in wishes.machine.names:
        notes = (*notes, "machine.usd_per_hour counts for machines that are named; those of auto have their own prices")
    if wishes.machine.stale_prices == "refuse":
        machines = fresh_prices(machines, datetime.now(UTC).date())
    shape = read_shape(wishes.model.name, wishes.model.revision)
    dataset, tokenizer = read_dataset(wishes, shape)
    workload = Workload.from_samples(dataset.train, dataset.evaluation, labels=len(dataset.labels))
    check_warm_start(wishes, shape, tokenizer)
    workload = replace(workload, new_vocabulary=plan_vocabulary(wishes, shape, tokenizer))
    return make_plan(wishes, shape, workload, _experienced(machines, wishes), notes=notes), dataset, tokenizer


def check(recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> Checked:
    """What `train` looks for before its first step, and nothing else: no folder is made, no row is written.

    The model is checked where it can be had here within the time; else the findings say why not. Raises InputError and
    NoPlanFits as `plan` does; refusals are among the findings.
    """
    started = time.monotonic()
    wishes = _wishes(recipe, overrides)
    chosen, dataset, tokenizer = _planned(wishes)
    examples = first_examples(wishes, EXAMPLES)
    paper = Paper(wishes.task, dataset, tokenizer, chosen.shape.vocab_size, wishes.model.name, examples)
    findings = check_paper(paper)
    if not any(finding.verdict == "refusal" for finding in findings):
        if why := _no_model(chosen):
            findings += left_out(why)
        else:
            from tenfold.run.train import checked_model

            findings += checked_model(chosen, dataset, tokenizer, LIMIT_SECONDS - (time.monotonic() - started))
    return Checked(findings, preview(dataset.train[0], tokenizer), time.monotonic() - started)


def _no_model(chosen: Plan) -> str:
    """Why the planned model is not checked here; empty if it is."""
    if find_spec("torch") is None:
        return "PyTorch is not installed; pip install 'tenfold[train]'"
    if any(cut["cut"] == "warm_start" for cut in chosen.cuts):
        return "the changed model does not exist yet; `tenfold train` checks it"
    if chosen.machine.vendor_kind == "cpu" and 4 * chosen.shape.parameters > MOST_READ_BYTES:
        return f"reading {chosen.shape.parameters / 1e9:.1f}B weights takes too long here; `tenfold train` checks them"
    import torch

    if chosen.machine.vendor_kind == "cuda" and not torch.cuda.is_available():
        return f"the plan is for {chosen.machine.label}, and torch finds no GPU here; `tenfold train` checks it there"
    return ""


def vocabulary(recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> VocabularySizes:
    """What new tokens would save on a recipe's rows, for several numbers of them, and the number that pays.

    Raises InputError as `plan` does, and where the texts are too few to choose from.
    """
    wishes = _wishes(recipe, overrides)
    start = wishes.cuts.warm_start
    settings = start if isinstance(start, WarmStartWish) else WarmStartWish()

    def plan_with(tokens: int | str | None) -> Plan:
        asked = False if tokens is None else settings.model_copy(update={"tokens": tokens, "tokenizer": None})
        cuts = wishes.cuts.model_copy(update={"warm_start": asked})
        return plan(wishes.model_copy(update={"cuts": cuts}))

    return compare_sizes(plan_with(None), plan_with("auto"), plan_with)


def _wishes(
    recipe: Recipe | Mapping[str, Any] | str | Path | None,
    overrides: Sequence[str],
    model: str | None = None,
    data: str | Sequence[str] | None = None,
    task: str | None = None,
) -> Recipe:
    if recipe is None:
        known = task or ("" if any(text.startswith("task=") for text in overrides) else None)
        return recipe_from_dict(_from_model_and_data(model, data, known), overrides)
    if model is not None or data is not None:
        raise InputError("plan: found a recipe and a model or data; give one or the other, or --set model.name=...")
    if isinstance(recipe, str | Path):
        return load_recipe(Path(recipe), overrides)
    return recipe if isinstance(recipe, Recipe) else recipe_from_dict(dict(recipe), overrides)


def _from_model_and_data(model: str | None, data: str | Sequence[str] | None, task: str | None) -> dict[str, Any]:
    """The least that a recipe says; no task if `task` is empty."""
    if model is None or not data:
        raise InputError("plan: name a recipe, or a model and its data, e.g. Qwen/Qwen3-0.6B train.jsonl")
    files = [data] if isinstance(data, str) else list(data)
    known = guess_task(files) if task is None else task
    output = {"folder": f"runs/{Path(model).name or 'model'}"}
    return {"model": model, "data": {"train": files}, "output": output, **({"task": known} if known else {})}


def _experienced(machines: Sequence[Machine], wishes: Recipe) -> tuple[Machine, ...]:
    """The machines with what their finished runs taught, as far as the ledger knows of any."""
    path = default_ledger_path() if wishes.output.ledger is None else Path(wishes.output.ledger)
    if not path.exists():
        return tuple(machines)
    with open_ledger(path) as ledger:
        rows = [entry.row for entry in ledger.rows()]
    ran_on = {row.machine for row in rows}
    return tuple(_learned_from(rows, machine) if machine.name in ran_on else machine for machine in machines)


def _learned_from(rows: Sequence[Row], machine: Machine) -> Machine:
    """Rates by its finished runs, and a margin that would have held them."""
    found = feedback(rows, machine.name, machine.dtype)
    above = max((ratio - 1 for ratio in found.peak_ratios), default=0.0)
    return replace(learned(machine, found.observations), memory_margin=max(MEMORY_MARGIN, min(0.5, above + 0.02)))


def read_dataset(recipe: Recipe, shape: Shape) -> tuple[Dataset, Tokenizer]:
    """The recipe's data as token ids, by the tokenizer's files alone. Raises InputError if the two do not fit."""
    tokenizer = read_tokenizer(recipe.model.name, recipe.model.revision)
    dataset = load_dataset(recipe, tokenizer, shape.max_positions)
    check_vocabulary((*dataset.train, *dataset.evaluation), tokenizer, shape.vocab_size, recipe.model.name)
    return dataset, tokenizer


def train(plan: Plan, observers: Sequence[Observer] = (), *, age_seconds: float = 0.0) -> Receipt:
    """Execute a plan, or continue it; see `tenfold.run.train.train`. `age_seconds`: since when it is billed."""
    check_alone()
    started = time.monotonic()
    weights_hash = BaseHash.begun(plan.recipe.model.name)  # reads the weights while torch is imported
    from tenfold.run.train import train as run_train

    age_seconds += time.monotonic() - started
    return run_train(plan, observers, age_seconds=age_seconds, weights_hash=weights_hash)


def apply(model: PreTrainedModel, cuts: Sequence[Cut], task: Task | None = None) -> Rig:
    """Apply cuts to a model you loaded yourself, for your own loop; the model is changed in place.

    Returns the rig: `rig.model` is your model, `rig.mean_loss(input_ids, labels, attention_mask)` its loss with the
    cuts in it, `rig.facts` what each cut did. `task` is found from the model's class if not given.
    """
    from tenfold.cuts import on_rig
    from tenfold.rig.model import rig_around

    return on_rig(cuts, rig_around(model, task))
