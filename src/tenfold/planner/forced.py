"""A forced cut that changes nothing on paper is refused before anything is paid."""

from __future__ import annotations

import difflib
from dataclasses import replace

from tenfold.cuts import Checkpoint, FineTune
from tenfold.cuts.lora import MODULE_NAMES, names_layer
from tenfold.errors import InputError, NoEffect
from tenfold.job import Job
from tenfold.planner.keeping import can_tile
from tenfold.planner.options import (
    checkpoint_wish,
    fuse_options,
    lora_options,
    pack_options,
    quantize_options,
    warm_start_options,
)
from tenfold.recipe import LoraWish, Recipe
from tenfold.shape import Shape

COUNTERPARTS = {
    "q": ("qkv",),
    "k": ("qkv",),
    "v": ("qkv",),
    "qkv": ("q", "k", "v"),
    "gate": ("gate_up",),
    "up": ("gate_up",),
    "gate_up": ("gate", "up"),
}
"""Layers that other families fuse, or keep apart."""


def check_forced(recipe: Recipe, dense: Job) -> None:
    """Raises NoEffect naming the forced cut that cannot change this job, InputError on a number that it cannot have."""
    _check_targets(recipe, dense.shape)
    base = FineTune().price(dense)
    for name, options in (
        ("warm_start", warm_start_options(recipe, dense.workload)),
        ("quantize", quantize_options(recipe)),
        ("lora", lora_options(recipe)),
        ("pack", pack_options(recipe, dense.workload)),
        ("fuse", fuse_options(recipe)),
    ):
        if None not in options and all(option is not None and option.price(base) == base for option in options):
            raise NoEffect(f"cuts.{name}: changes nothing for task {recipe.task} on this model and data; leave it out")
    warm = warm_start_options(recipe, dense.workload)[0]
    base = base if warm is None else warm.price(base)
    wish = checkpoint_wish(recipe, base.shape.layers)
    if isinstance(wish, Checkpoint):
        _check_checkpoint(wish, base)


def _check_checkpoint(cut: Checkpoint, job: Job) -> None:
    """No more blocks than there are, and none offloaded to where they are already."""
    blocks = job.shape.layers
    if cut.layers > blocks:
        raise InputError(f"cuts.checkpoint.layers: found {cut.layers}, but the model has {blocks} blocks")
    if cut.offload > blocks - 1:
        raise InputError(f"cuts.checkpoint.offload: found {cut.offload}, but at most {blocks - 1} of {blocks} can be")
    if cut.price(job) == replace(cut, offload=0).price(job) and cut.offload:
        raise NoEffect("cuts.checkpoint.offload: this machine computes in host memory; leave it out, or write layers")
    if cut.mlp_tiles > 1 and not can_tile(job):
        why = "encoders" if job.shape.kind == "encoder" else "models that drop out in them"
        raise InputError(f"cuts.checkpoint.mlp_tiles: feed-forward parts of {why} do not run in tiles; leave it out")


def _check_targets(recipe: Recipe, shape: Shape) -> None:
    """Every name must be one of this family's; of an unknown family, one that some family has."""
    wish = recipe.cuts.lora
    for target in wish.targets if isinstance(wish, LoraWish) and wish.targets != "all-linear" else ():
        if not any(names_layer(target, linear, shape.layers) for linear in shape.block_linears):
            raise NoEffect(
                f"cuts.lora.targets: no linear layer of this model is called {target}; {_hint(target, shape)}"
            )


def _hint(target: str, shape: Shape) -> str:
    """The nearest names, then all; without the family's names, what always works."""
    known = {linear.name: linear.module.rsplit(".", 1)[-1] for linear in shape.block_linears if linear.module}
    if not known:
        return "write all-linear"
    last = target.rsplit(".", 1)[-1]
    roles = {role for role, names in MODULE_NAMES.items() if last in names}
    roles |= {other for role in roles for other in COUNTERPARTS.get(role, ())}
    near = [name for role, name in known.items() if role in roles]
    near = near or difflib.get_close_matches(last, list(known.values()), 3, 0.6)
    start = f"did you mean {' or '.join(dict.fromkeys(near))}? It" if near else "it"
    return f"{start} has {', '.join(dict.fromkeys(known.values()))}; or write all-linear"
