"""The checkpoint cut for real: of each block what is kept, what is run again, and what waits in host memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.cuts.checkpoint import Checkpoint
from tenfold.errors import InputError, NoEffect
from tenfold.rig.backward import eager_backward
from tenfold.rig.graphs import GraphedBackward
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.offloading import OffloadedBlock, Offloading
from tenfold.rig.rig import Rig


def checkpoint_blocks(rig: Rig, cut: Checkpoint) -> Rig:
    """The rig with so many blocks recomputed and so many offloaded, whatever was set before.

    Raises NoEffect without blocks, InputError if there are fewer. Recorded passes are given up where blocks are
    offloaded: a recording may not allocate pinned memory.
    """
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks or (cut.layers, cut.offload) == (0, 0):
        raise NoEffect(f"checkpoint: nothing to do in the {len(blocks)} blocks of {type(rig.model).__name__}")
    for setting, count, most in (("layers", cut.layers, len(blocks)), ("offload", cut.offload, len(blocks) - 1)):
        if count > most:
            found = f"cuts.checkpoint.{setting}: found {count}"
            raise InputError(f"{found}, but at most {most} of {len(blocks)} blocks can be")
    _apply(blocks, cut, rig.device)
    fact = f"checkpoint: {describe(cut, len(blocks))}"
    facts = (*(fact for fact in rig.facts if not fact.startswith("checkpoint:")), fact)
    if cut.offload and isinstance(rig.backpropagate, GraphedBackward):
        facts = (*facts, "checkpoint: passes are not recorded, since copies to host memory are not")
        rig = replace(rig, backpropagate=eager_backward)
    return replace(rig, checkpoint=cut, facts=facts)


def describe(cut: Checkpoint, blocks: int) -> str:
    """What is done, in words."""
    recomputed = f"{cut.layers} of {blocks} blocks recomputed"
    offloaded = f"{cut.offload} of {blocks} blocks in host memory until their backward pass"
    return ", ".join(part for part, count in ((recomputed, cut.layers), (offloaded, cut.offload)) if count)


@dataclass(frozen=True)
class Place:
    """What becomes of one block."""

    recomputed: bool
    offloaded: bool
    follows: bool
    """It is the block after which the copies of the last offloaded one are waited for."""


def places_of(cut: Checkpoint, blocks: int) -> list[Place]:
    """What becomes of each block, in their order.

    Offloaded blocks are evenly spread, so that each has the time of the blocks between for its copies. Recomputed are
    the first of the others, for a kept block frees its activations first if it is a late one; then offloaded ones too,
    and of these only the input waits in host memory.
    """
    count = cut.offload
    offloaded = [number * (blocks - 1) // count for number in range(count)]
    others = [block for block in range(blocks) if block not in offloaded]
    recomputed = [*others, *offloaded][: cut.layers]
    return [Place(b in recomputed, b in offloaded, bool(count) and b == blocks - 1) for b in range(blocks)]


def _apply(blocks: list[GradientCheckpointingLayer], cut: Checkpoint, device: torch.device) -> None:
    """By the blocks' own switch. The model-wide one would also make the embeddings require gradients, which the
    non-reentrant form does not need and which would carry the backward pass below the lowest layer that learns."""
    shared = Offloading(device) if cut.offload else None
    for number, (block, place) in enumerate(zip(blocks, places_of(cut, len(blocks)), strict=True)):
        block.gradient_checkpointing = place.recomputed or place.offloaded or place.follows
        how = partial(checkpoint, use_reentrant=False)
        if shared is not None and (place.offloaded or place.follows):
            how = OffloadedBlock(
                shared,
                partial(_weights, block),
                first=number == 0,
                offloaded=place.offloaded,
                recomputed=place.recomputed,
            )
        # transformers declares no such attribute, and torch takes those that are not declared for tensors or modules
        block._gradient_checkpointing_func = cast("Any", how)


def _weights(block: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What a block computes with: parameters, buffers, and what merged products made of them."""
    yield from block.parameters()
    yield from block.buffers()
    for module in block.modules():
        if isinstance(module, AdaptedLinear) and module.group is not None:
            yield from module.group.parts
