"""The Python interface: plan, train, apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.data import Dataset, Tokenizer, check_vocabulary, load_dataset, read_tokenizer
from tenfold.machine import find_machines
from tenfold.planner import Plan, VocabularySizes, check_warm_start, compare_sizes, make_plan, plan_vocabulary
from tenfold.recipe import Recipe, WarmStartWish, load_recipe, recipe_from_dict
from tenfold.shape import Shape, read_shape
from tenfold.workload import Workload

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tenfold.cuts import Cut
    from tenfold.receipt import Receipt
    from tenfold.rig.rig import Rig, Task
    from tenfold.run.events import Observer


def plan(recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Price every combination of cuts and machines for a recipe, on the real token lengths of its data.

    `recipe` is a file, a mapping with a recipe's keys, or a Recipe; `overrides` are "key.subkey=value" texts. Imports
    no torch. Raises InputError on a bad recipe or bad data, NoPlanFits when nothing meets the wishes.
    """
    wishes = _wishes(recipe, overrides)
    machines = find_machines(wishes.machine, wishes.train.dtype)
    shape = read_shape(wishes.model.name, wishes.model.revision)
    dataset, tokenizer = read_dataset(wishes, shape)
    workload = Workload.from_samples(dataset.train, dataset.evaluation, labels=len(dataset.labels))
    check_warm_start(wishes, shape, tokenizer)
    workload = replace(workload, new_vocabulary=plan_vocabulary(wishes, shape, tokenizer))
    return make_plan(wishes, shape, workload, machines)


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


def _wishes(recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, str | Path):
        return load_recipe(Path(recipe), overrides)
    return recipe if isinstance(recipe, Recipe) else recipe_from_dict(dict(recipe))


def read_dataset(recipe: Recipe, shape: Shape) -> tuple[Dataset, Tokenizer]:
    """The recipe's data as token ids, by the tokenizer's files alone. Raises InputError if the two do not fit."""
    tokenizer = read_tokenizer(recipe.model.name, recipe.model.revision)
    dataset = load_dataset(recipe, tokenizer, shape.max_positions)
    check_vocabulary((*dataset.train, *dataset.evaluation), tokenizer, shape.vocab_size, recipe.model.name)
    return dataset, tokenizer


def train(plan: Plan, observers: Sequence[Observer] = ()) -> Receipt:
    """Execute a plan, or continue it; see `tenfold.run.train.train`."""
    from tenfold.run.train import train as run_train

    return run_train(plan, observers)


def apply(model: PreTrainedModel, cuts: Sequence[Cut], task: Task | None = None) -> Rig:
    """Apply cuts to a model you loaded yourself, for your own loop; the model is changed in place.

    Returns the rig: `rig.model` is your model, `rig.mean_loss(input_ids, labels, attention_mask)` its loss with the
    cuts in it, `rig.facts` what each cut did. `task` is found from the model's class if not given.
    """
    from tenfold.cuts import on_rig
    from tenfold.rig.model import rig_around

    return on_rig(cuts, rig_around(model, task))
