"""The fuse cut on a GPU: merged products, compiled layers, recorded passes."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.errors import NoEffect
from tenfold.rig.chunked_loss import ChunkedLoss, loss_in_one_pass
from tenfold.rig.graphs import GraphedBackward
from tenfold.rig.merging import merge_products
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig


def compile_rig(rig: Rig) -> Rig:
    """The rig with merged products and compiled layers; on a GPU also with steady shapes and recorded passes.

    One compilation serves all layers of a kind: their weights are its inputs. Raises NoEffect without layers.
    """
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise NoEffect(f"fuse: {type(rig.model).__name__} has no layers to compile one by one")
    groups = merge_products(rig.model) if rig.adapter is not None else []
    for block in blocks:
        block.compile()
    facts = [f"fuse: {len(blocks)} layers compiled, {sum(groups)} adapted products merged into {len(groups)}"]
    loss = rig.loss
    if isinstance(loss, ChunkedLoss):
        loss = replace(loss, chunk_loss_and_gradient=torch.compile(loss_in_one_pass))
    rig = replace(rig, loss=loss)
    if rig.device.type == "cuda":
        layout = replace(rig.layout, steady=True) if isinstance(rig.layout, PackedLayout) else rig.layout
        rig = replace(rig, layout=layout, backpropagate=GraphedBackward())
        facts.append("fuse: micro-batches of one shape recorded as CUDA graphs")
    return replace(rig, facts=(*rig.facts, *facts))
