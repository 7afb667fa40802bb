"""The Python interface: plan, train, apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.data import Dataset, Tokenizer, check_vocabulary, load_dataset, read_tokenizer
from tenfold.machine import find_machines
from tenfold.planner import Plan, make_plan
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict
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
    if isinstance(recipe, str | Path):
        wishes = load_recipe(Path(recipe), overrides)
    else:
        wishes = recipe if isinstance(recipe, Recipe) else recipe_from_dict(dict(recipe))
    machines = find_machines(wishes.machine, wishes.train.dtype)
    shape = read_shape(wishes.model.name, wishes.model.revision)
    dataset, _ = read_dataset(wishes, shape)
    workload = Workload.from_samples(dataset.train, dataset.evaluation, labels=len(dataset.labels))
    return make_plan(wishes, shape, workload, machines)


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
