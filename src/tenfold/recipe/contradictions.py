"""Wishes that are each possible, but not together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenfold.recipe.schema import Recipe

LABEL_METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Contradiction:
    """Keys that do not go together, the one to change first, and why."""

    keys: tuple[str, ...]
    text: str


def find_contradictions(recipe: Recipe) -> tuple[Contradiction, ...]:
    """All contradictions of a recipe whose single values are right."""
    return (*_in_train(recipe), *_in_optimizer(recipe), *_in_data(recipe), *_in_quality(recipe), *_in_cuts(recipe))


def _in_train(recipe: Recipe) -> Iterator[Contradiction]:
    wish = recipe.train
    if wish.max_steps is not None and "epochs" in wish.model_fields_set:
        text = f"{wish.max_steps} steps and {wish.epochs:g} epochs are both asked for; keep one"
        yield Contradiction(("train.max_steps", "train.epochs"), text)
    if wish.micro_batch_size is not None and wish.micro_batch_size > wish.batch_size:
        text = f"found {wish.micro_batch_size}, more than train.batch_size ({wish.batch_size}); write at most that"
        yield Contradiction(("train.micro_batch_size", "train.batch_size"), text)
    if wish.warmup >= 1 and wish.warmup != int(wish.warmup):
        text = f"found {wish.warmup:g}, expected a share of all steps below 1 or a whole number of steps"
        yield Contradiction(("train.warmup",), text)
    if wish.max_steps is not None and wish.warmup >= wish.max_steps and wish.warmup >= 1:
        text = f"found {wish.warmup:g} steps of warmup in a run of {wish.max_steps}; write fewer"
        yield Contradiction(("train.warmup", "train.max_steps"), text)


def _in_optimizer(recipe: Recipe) -> Iterator[Contradiction]:
    """Split weights: all of them learn, and compute in bfloat16."""
    if recipe.train.optimizer != "adamw_8bit_split":
        return
    for name in ("lora", "quantize"):
        if getattr(recipe.cuts, name) not in ("auto", False):
            text = "found adamw_8bit_split, which splits weights that all learn; write adamw_8bit, or remove the cut"
            yield Contradiction(("train.optimizer", f"cuts.{name}"), text)
    if recipe.train.dtype == "float32":
        text = "found adamw_8bit_split, whose weights are bfloat16; write adamw_8bit, or train.dtype: bfloat16"
        yield Contradiction(("train.optimizer", "train.dtype"), text)


def _in_data(recipe: Recipe) -> Iterator[Contradiction]:
    wish = recipe.data
    if wish.eval is not None and "eval_fraction" in wish.model_fields_set and wish.eval_fraction > 0:
        text = "rows to evaluate on are named in data.eval, so none are held out; keep one of the two"
        yield Contradiction(("data.eval_fraction", "data.eval"), text)
    if wish.overlong == "split" and recipe.task != "text":
        text = f"found split, which only task text can do; write truncate or drop for {recipe.task}"
        yield Contradiction(("data.overlong", "task"), text)


def _in_quality(recipe: Recipe) -> Iterator[Contradiction]:
    wish = recipe.quality
    if wish is None:
        return
    by_label = wish.metric in LABEL_METRICS
    if by_label and recipe.task != "classify":
        text = f"found {wish.metric}, which only task classify has; write loss or perplexity for {recipe.task}"
        yield Contradiction(("quality.metric", "task"), text)
    if wish.metric == "perplexity" and recipe.task == "classify":
        text = "found perplexity, which task classify does not have; write accuracy, macro_f1 or loss"
        yield Contradiction(("quality.metric", "task"), text)
    if by_label and wish.at_most is not None:
        text = f"more {wish.metric} is better, so a ceiling cannot be a goal; write quality.at_least"
        yield Contradiction(("quality.at_most", "quality.metric"), text)
    if not by_label and wish.at_least is not None:
        text = f"less {wish.metric} is better, so a floor cannot be a goal; write quality.at_most"
        yield Contradiction(("quality.at_least", "quality.metric"), text)
    if recipe.data.eval is None and recipe.data.eval_fraction == 0:
        text = (
            "data.eval_fraction is 0 and there is no data.eval, so quality cannot be measured; name rows to evaluate on"
        )
        yield Contradiction(("quality", "data.eval_fraction"), text)


def _in_cuts(recipe: Recipe) -> Iterator[Contradiction]:
    cuts, data = recipe.cuts, recipe.data
    if cuts.fine_tune is False and cuts.lora not in ("auto", False):
        text = "adapters on frozen noise learn nothing; with cuts.fine_tune false write cuts.lora: false"
        yield Contradiction(("cuts.lora", "cuts.fine_tune"), text)
    if cuts.quantize not in ("auto", False) and (cuts.lora is False or cuts.fine_tune is False):
        text = "quantized weights are frozen, so that only adapters can learn; write cuts.lora: true, or remove it"
        yield Contradiction(("cuts.quantize", "cuts.lora", "cuts.fine_tune"), text)
    yield from _in_warm_start(recipe)
    tokens = None if isinstance(cuts.pack, bool | str) else cuts.pack.tokens
    if tokens is not None and data.max_length is not None and tokens < data.max_length:
        text = f"found {tokens}, but one row may have {data.max_length} tokens (data.max_length); write at least that"
        yield Contradiction(("cuts.pack.tokens", "data.max_length"), text)


def _in_warm_start(recipe: Recipe) -> Iterator[Contradiction]:
    wish = recipe.cuts.warm_start
    if wish in ("auto", False):
        return
    if recipe.cuts.fine_tune is False:
        text = "there is nothing to start from with cuts.fine_tune false; remove one of the two"
        yield Contradiction(("cuts.warm_start", "cuts.fine_tune"), text)
    if isinstance(wish, bool | str):
        return
    if wish.tokens is not None and wish.tokenizer is not None:
        text = "tokens are added to the model's own vocabulary, tokenizer replaces it; keep one of the two"
        yield Contradiction(("cuts.warm_start.tokens", "cuts.warm_start.tokenizer"), text)
    if wish.donor is None and wish.initialise in ("transplant", "donor"):
        text = f"found {wish.initialise}, which needs the rows of a donor; name one in cuts.warm_start.donor"
        yield Contradiction(("cuts.warm_start.initialise", "cuts.warm_start.donor"), text)
    if wish.donor is not None and not wish.take_layers and wish.initialise not in ("transplant", "donor"):
        text = f"found a donor, of which {wish.initialise} takes nothing; write initialise: transplant, or take_layers"
        yield Contradiction(("cuts.warm_start.donor", "cuts.warm_start.initialise"), text)
    if wish.donor is None and wish.take_layers:
        text = "blocks are taken from a donor; name one in cuts.warm_start.donor"
        yield Contradiction(("cuts.warm_start.take_layers", "cuts.warm_start.donor"), text)
