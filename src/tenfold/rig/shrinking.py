"""The next smaller way to compute the same step, for when memory runs out."""

from __future__ import annotations

from dataclasses import replace

from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.rig.batch import PaddedLayout
from tenfold.rig.checkpointing import checkpoint_blocks
from tenfold.rig.graphs import GraphedBackward
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig


def shrink(rig: Rig, longest_row: int) -> tuple[Rig, str] | None:
    """A rig that needs less memory for the same optimizer step, and what was changed; None if there is none left.

    Micro-batches are halved first, down to one row: that costs a little speed. Then more blocks are recomputed.
    """
    layout = rig.layout
    fresh = GraphedBackward() if isinstance(rig.backpropagate, GraphedBackward) else rig.backpropagate
    if isinstance(layout, PaddedLayout) and layout.rows > 1:
        rows = (layout.rows + 1) // 2
        return replace(rig, layout=replace(layout, rows=rows), backpropagate=fresh), f"{rows} rows a micro-batch"
    if isinstance(layout, PackedLayout) and layout.tokens > longest_row:
        tokens = max(longest_row, layout.tokens // 2)
        smaller = replace(rig, layout=replace(layout, tokens=tokens), backpropagate=fresh)
        return smaller, f"{tokens} tokens a micro-batch"
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    recomputed = sum(block.gradient_checkpointing for block in blocks)
    if recomputed == len(blocks):
        return None
    more = min(len(blocks), recomputed + max(1, len(blocks) // 4))
    return replace(checkpoint_blocks(rig, more), backpropagate=fresh), f"{more} of {len(blocks)} blocks recomputed"
