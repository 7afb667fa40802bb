"""What a warm start's layers and donor are asked for, held against their shapes before anything is paid."""

from __future__ import annotations

from tenfold.data import Tokenizer, read_tokenizer
from tenfold.data.account import plain
from tenfold.errors import InputError
from tenfold.recipe import Recipe, WarmStartWish
from tenfold.shape import Shape, read_shape
from tenfold.vocabulary import check_splits, shared_ids

SAME = ("model_type", "hidden_size", "heads", "kv_heads", "head_dim", "intermediate_size")
"""What two models must have in common for blocks of one to work in the other."""


def check_warm_start(recipe: Recipe, shape: Shape, tokenizer: Tokenizer) -> None:
    """Raises InputError on blocks that a model does not have, and on a donor that does not fit."""
    wish = recipe.cuts.warm_start
    if not isinstance(wish, WarmStartWish):
        return
    _check_numbers("keep_layers", wish.keep_layers, shape, "model")
    shape.with_blocks(shape.layers, wish.intermediate_size or shape.intermediate_size)
    shape.with_width(wish.hidden_size or 0, wish.num_attention_heads or 0)
    if wish.grow_layers and shape.post_norm:
        raise InputError(
            f"cuts.warm_start.grow_layers: a {shape.model_type} normalises behind its sums, so that no block leaves"
            " them as they were; grow a model with norms before its layers"
        )
    if wish.initialise == "compose" and wish.tokenizer is not None:
        for one in (tokenizer, read_tokenizer(wish.tokenizer)):
            check_splits(one)
    if wish.donor is None:
        return
    if wish.take_layers:
        donor = read_shape(wish.donor)
        for name in SAME:
            ours, theirs = getattr(shape, name), getattr(donor, name)
            if ours != theirs:
                raise InputError(
                    f"cuts.warm_start.donor: {plain(wish.donor)} has {name} {theirs}, and the model {ours}; blocks can"
                    " only come from the same architecture in the same width"
                )
        _check_numbers("take_layers", wish.take_layers, donor, "donor")
    if wish.initialise in ("transplant", "donor"):
        shared_ids(read_tokenizer(wish.donor), tokenizer)


def _check_numbers(key: str, numbers: tuple[int, ...], shape: Shape, whose: str) -> None:
    if wrong := [number for number in numbers if number >= shape.layers]:
        raise InputError(f"cuts.warm_start.{key}: found {wrong[0]}, but the {whose} has blocks 0 to {shape.layers - 1}")
