"""The next smaller way to compute the same step, for when memory runs out."""

from __future__ import annotations

from dataclasses import replace

from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.cuts.checkpoint import Checkpoint
from tenfold.errors import InputError
from tenfold.rig.backward import eager_backward
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.checkpointing import checkpoint_blocks, describe
from tenfold.rig.graphs import GraphedBackward, RecordingFailed
from tenfold.rig.out_of_memory import ran_out_of_memory
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig

MOST_TILES = 64
"""Of a feed-forward part: in as many, what a tile takes is next to nothing beside the rest of a block."""


def recover(rig: Rig, error: RuntimeError, longest_row: int) -> tuple[Rig, str] | None:
    """What to do after an error of a step, and in words; None if nothing helps.

    Less memory where it ran out; one kernel at a time where a pass cannot be recorded for another reason.
    """
    if ran_out_of_memory(error):
        found = shrink(rig, longest_row)
        if found is None:
            return None
        smaller, change = found
        return smaller, f"out of memory: this step starts again, from now on with {change}"
    if isinstance(error, RecordingFailed):
        change = f"a pass could not be recorded ({error}): this step starts again, from now on without recording"
        return replace(rig, backpropagate=eager_backward), change
    return None


def shrink(rig: Rig, longest_row: int) -> tuple[Rig, str] | None:
    """A rig that needs less memory for the same optimizer step, and what was changed; None if there is none left.

    Micro-batches are halved first, down to one row: that costs a little speed. Then more blocks are recomputed, then,
    where the device is not the host, as many as can be leave their inputs in host memory, and at last feed-forward
    parts run in tiles.
    """
    layout = rig.layout
    if isinstance(rig.backpropagate, GraphedBackward):
        rig.backpropagate.forget()
    if isinstance(layout, PaddedLayout) and layout.rows > 1:
        rows = (layout.rows + 1) // 2
        return replace(rig, layout=replace(layout, rows=rows)), f"{rows} rows a micro-batch"
    if isinstance(layout, PackedLayout) and layout.tokens > longest_row:
        tokens = max(longest_row, layout.tokens // 2)
        return replace(rig, layout=replace(layout, tokens=tokens)), f"{tokens} tokens a micro-batch"
    blocks = sum(isinstance(module, GradientCheckpointingLayer) for module in rig.model.modules())
    cut = rig.checkpoint or Checkpoint()
    if cut.layers < blocks:
        cut = replace(cut, layers=min(blocks, cut.layers + max(1, blocks // 4)))
    elif cut.offload < blocks - 1 and rig.device.type != "cpu":
        cut = replace(cut, offload=blocks - 1)
    elif cut.mlp_tiles < MOST_TILES:
        cut = replace(cut, mlp_tiles=4 * cut.mlp_tiles)
    else:
        return None
    try:
        return checkpoint_blocks(rig, cut), describe(cut, blocks)
    except InputError:  # its feed-forward parts do not run in tiles
        return None
