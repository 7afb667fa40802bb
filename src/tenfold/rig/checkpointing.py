"""The checkpoint cut for real: of each block what is kept, what is run again, and what waits in host memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

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
from tenfold.rig.stand_in import StandIn, own_forward
from tenfold.rig.tiling import tile_feed_forwards, untile_feed_forwards


def checkpoint_blocks(rig: Rig, cut: Checkpoint) -> Rig:
    """The rig with so many blocks recomputed and so many offloaded, whatever was set before.

    Raises NoEffect without blocks, InputError if there are fewer. Recorded passes are given up where blocks are
    offloaded, since a recording may not allocate pinned memory, or run in tiles, which was not tried.
    """
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks or (cut.layers, cut.offload) == (0, 0):
        raise NoEffect(f"checkpoint: nothing to do in the {len(blocks)} blocks of {type(rig.model).__name__}")
    for setting, count, most in (("layers", cut.layers, len(blocks)), ("offload", cut.offload, len(blocks) - 1)):
        if count > most:
            found = f"cuts.checkpoint.{setting}: found {count}"
            raise InputError(f"{found}, but at most {most} of {len(blocks)} blocks can be")
    _apply(rig, blocks, cut)
    fact = f"checkpoint: {describe(cut, len(blocks))}"
    facts = (*(fact for fact in rig.facts if not fact.startswith("checkpoint:")), fact)
    if (cut.offload or cut.mlp_tiles > 1) and isinstance(rig.backpropagate, GraphedBackward):
        facts = (*facts, "checkpoint: passes are not recorded, since copies to host memory, or tiles, are not")
        rig = replace(rig, backpropagate=eager_backward)
    return replace(rig, checkpoint=cut, facts=facts)


def describe(cut: Checkpoint, blocks: int) -> str:
    """What is done, in words."""
    tiles = f", their feed-forward parts in {cut.mlp_tiles} tiles" if cut.mlp_tiles > 1 else ""
    recomputed = f"{cut.layers} of {blocks} blocks recomputed{tiles}"
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


class Around(Protocol):
    """How a block is run where a backward pass may follow: (function, *inputs) to its result."""

    def __call__(self, function: partial[torch.Tensor], /, *inputs: Any) -> torch.Tensor:
        """As `function(*inputs)`."""
        ...


class PlacedForward(StandIn):
    """A block's `forward`, run so that what autograd keeps of it, if it keeps anything, goes where its place says.

    The switch that transformers has for this is not used: after version 5.17 it is inside of what torch.compile traces,
    which then leaves the block as it is written.
    """

    def __init__(self, block: torch.nn.Module, around: Around) -> None:
        super().__init__(block)
        self._around = around

    def __call__(self, *inputs: Any, **keywords: Any) -> torch.Tensor:
        """As the block's own. A block that may run twice gets no cache of keys and values, which would see both."""
        if not torch.is_grad_enabled():
            return self.own(*inputs, **keywords)
        without = {name: None for name in ("past_key_values", "layer_past") if name in keywords}
        return self._around(partial(self.own, **{**keywords, **without}), *inputs)


def _apply(rig: Rig, blocks: list[GradientCheckpointingLayer], cut: Checkpoint) -> None:
    shared = Offloading(rig.device) if cut.offload else None
    places = places_of(cut, len(blocks))
    untile_feed_forwards(blocks)
    if cut.mlp_tiles > 1:
        tile_feed_forwards(rig, [b for b, place in zip(blocks, places, strict=True) if place.recomputed], cut.mlp_tiles)
    for number, (block, place) in enumerate(zip(blocks, places, strict=True)):
        around: Around | None = partial(checkpoint, use_reentrant=False) if place.recomputed else None
        if shared is not None and (place.offloaded or place.follows):
            around = OffloadedBlock(
                shared,
                partial(_weights, block),
                first=number == 0,
                offloaded=place.offloaded,
                recomputed=place.recomputed,
            )
        block.forward = own_forward(block) if around is None else PlacedForward(block, around)


def _weights(block: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What a block computes with: parameters, buffers, and what merged products made of them."""
    yield from block.parameters()
    yield from block.buffers()
    for module in block.modules():
        if isinstance(module, AdaptedLinear) and module.group is not None:
            yield from module.group.parts
