"""The checkpoint cut for real: which blocks are run again in the backward pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.errors import InputError, NoEffect
from tenfold.rig.rig import Rig


def checkpoint_blocks(rig: Rig, layers: int) -> Rig:
    """Recompute the first `layers` blocks. Raises NoEffect without blocks, InputError if there are fewer."""
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks or layers < 1:
        raise NoEffect(f"checkpoint: {layers} of the {len(blocks)} blocks of {type(rig.model).__name__} to recompute")
    if layers > len(blocks):
        raise InputError(f"cuts.checkpoint.layers: found {layers}, but the model has {len(blocks)} blocks")
    for block in blocks[:layers]:
        # The block's own switch. The model-wide one would also make the embeddings require gradients, which the
        # non-reentrant form does not need and which would carry the backward pass below the lowest layer that learns.
        block.gradient_checkpointing = True
        # transformers declares no such attribute, and torch takes those that are not declared for tensors or modules
        block._gradient_checkpointing_func = cast("Any", partial(checkpoint, use_reentrant=False))
    return replace(rig, facts=(*rig.facts, f"checkpoint: {layers} of {len(blocks)} blocks recomputed"))
