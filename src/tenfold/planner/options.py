"""Which settings of each cut a recipe leaves open."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

from tenfold.cuts import Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, WarmStart
from tenfold.cuts.quantize import StorageName
from tenfold.machine import find_compiler
from tenfold.recipe import Recipe
from tenfold.recipe.schema import (
    CheckpointWish,
    FuseWish,
    LoraWish,
    OptimizerName,
    PackWish,
    QuantizeWish,
    WarmStartWish,
)
from tenfold.workload import Workload

Option = Cut | None
"""A cut with its settings, or not."""

PACK_TOKENS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Sizes of a packed micro-batch that are tried: from cache-sized to what fills a large GPU."""


def fine_tune_options(recipe: Recipe) -> tuple[Option, ...]:
    """On unless forbidden."""
    return (None,) if recipe.cuts.fine_tune is False else (FineTune(),)


def warm_start_options(recipe: Recipe, workload: Workload) -> tuple[Option, ...]:
    """Off unless forced; the tokens were chosen when the rows were read."""
    wish = recipe.cuts.warm_start
    if wish in ("auto", False):
        return (None,)
    settings = wish if isinstance(wish, WarmStartWish) else WarmStartWish()
    new = workload.new_vocabulary
    return (
        WarmStart(
            tokens=() if new is None else new.tokens,
            tokenizer=settings.tokenizer or "",
            initialise=settings.initialise,
            donor=settings.donor or "",
            rows_first=settings.rows_first,
            rows_learning_rate=settings.rows_learning_rate,
            keep_layers=settings.keep_layers,
            take_layers=settings.take_layers,
            grow_layers=settings.grow_layers,
            intermediate_size=settings.intermediate_size or 0,
            hidden_size=settings.hidden_size or 0,
            num_attention_heads=settings.num_attention_heads or 0,
        ),
    )


def quantize_options(recipe: Recipe) -> tuple[Option, ...]:
    """Off unless forced: what it costs in quality is measured on one small model alone. What a recipe leaves to the
    planner of a forced one is tried in every way."""
    wish = recipe.cuts.quantize
    if wish in ("auto", False):
        return (None,)
    settings = wish if isinstance(wish, QuantizeWish) else QuantizeWish()
    storages = get_args(StorageName) if settings.storage == "auto" else (settings.storage,)
    computed = ("bf16", "fp8") if settings.compute == "auto" else (settings.compute,)
    kept = (False, True) if settings.keep is None else (settings.keep,)
    return tuple(Quantize(storage, compute, keep) for storage, compute, keep in product(storages, computed, kept))


def optimizer_options(recipe: Recipe) -> tuple[OptimizerName, ...]:
    """What the recipe names, or those of float32 weights: what split ones cost is not measured enough to be chosen."""
    return ("adamw", "adamw_8bit") if recipe.train.optimizer == "auto" else (recipe.train.optimizer,)


def lora_options(recipe: Recipe) -> tuple[Option, ...]:
    """Off and on, or as the recipe says; adapters on noise make no sense, on quantized weights nothing else, and an
    optimizer that splits weights is for all of them."""
    wish = recipe.cuts.lora
    only_full = recipe.cuts.fine_tune is False or recipe.train.optimizer == "adamw_8bit_split"
    if wish is False or (wish == "auto" and only_full):
        return (None,)
    settings = wish if isinstance(wish, LoraWish) else LoraWish()
    alpha = 2.0 * settings.rank if settings.alpha is None else settings.alpha
    cut = LoRA(settings.rank, alpha, settings.dropout, settings.targets, settings.rslora)
    return (None, cut) if wish == "auto" and quantize_options(recipe) == (None,) else (cut,)


def pack_options(recipe: Recipe, workload: Workload) -> tuple[Option, ...]:
    """Off, and on at each size that could matter."""
    wish = recipe.cuts.pack
    if wish is False:
        return (None,)
    if isinstance(wish, PackWish) and wish.tokens is not None:
        return (Pack(wish.tokens),)
    most = workload.tokens_of(recipe.train.batch_size)
    enough = next((size for size in PACK_TOKENS if size >= most), PACK_TOKENS[-1])
    packed = tuple(Pack(size) for size in PACK_TOKENS if size <= enough)
    return (None, *packed) if wish == "auto" else packed


def fuse_options(recipe: Recipe) -> tuple[Option, ...]:
    """Off, on, and on with compiled layers, or as the recipe says."""
    wish = recipe.cuts.fuse
    if wish is False:
        return (None,)
    settings = wish if isinstance(wish, FuseWish) else FuseWish()
    here = recipe.machine.name == "local"  # whether another computer has a compiler is not known
    both = (False, True) if not here or find_compiler("cuda") is not None else (False,)
    choices = both if settings.compile is None else (settings.compile,)
    cuts = tuple(Fuse(settings.loss_rows, choice) for choice in choices)
    return (None, *cuts) if wish == "auto" else cuts


def checkpoint_wish(recipe: Recipe, layers: int) -> Checkpoint | Literal["never", "where needed", "always"]:
    """The checkpoint that a recipe spells out; or whether the planner solves one."""
    wish = recipe.cuts.checkpoint
    if wish is False:
        return "never"
    if wish == "auto":
        return "where needed"
    if wish == "full":
        return Checkpoint(layers)
    if isinstance(wish, CheckpointWish) and (wish.layers or wish.offload or wish.mlp_tiles):
        return Checkpoint(wish.layers or (layers if wish.mlp_tiles else 0), wish.offload or 0, wish.mlp_tiles or 1)
    return "always"


def micro_row_options(recipe: Recipe) -> tuple[int, ...]:
    """Powers of two up to the batch, or what the recipe says."""
    if recipe.train.micro_batch_size is not None:
        return (min(recipe.train.micro_batch_size, recipe.train.batch_size),)
    sizes = [2**power for power in range(20) if 2**power < recipe.train.batch_size]
    return (*sizes, recipe.train.batch_size)
