"""The quantize cut for real: which layers are stored in few bits, and how they become plain again."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from tenfold.errors import InputError, NoEffect
from tenfold.rig.rig import Rig
from tenfold.rig.storage import storage_named
from tenfold.rig.stored_linear import StoredLinear, stored_weights


def quantize_linears(rig: Rig, storage_name: str) -> Rig:
    """The rig with the linear layers of its blocks stored as `storage_name`; what trains in full stays as it is.

    On a skeleton the layers are empty, and weights that are read later go straight into them. Raises NoEffect if the
    blocks have no linear layer, InputError if a layer's shape does not fit the format.
    """
    names = store_linears(rig.model, storage_name, rig.new_modules, rig.device)
    if not names:
        raise NoEffect(f"quantize: {type(rig.model).__name__} has no block with a linear layer")
    stored = [module for module in rig.model.modules() if isinstance(module, StoredLinear)]
    weights = stored_weights(rig.model)
    bits = sum(8 * part.nbytes for module in stored for part in module.parts.values()) / weights
    fact = f"quantize: {len(names)} linear layers in {storage_name}, {weights:,} weights of {bits:.2f} bits"
    return replace(rig, facts=(*rig.facts, fact))


def store_linears(
    model: PreTrainedModel, storage_name: str, new_modules: tuple[str, ...], device: torch.device
) -> list[str]:
    """Swap the linear layers of the blocks and return their names.

    One by one on `device`, so that it holds one dense layer at most beside what is stored; a skeleton stays one.
    """
    storage = storage_named(storage_name)
    modules = list(model.named_modules())
    blocks = tuple(f"{name}." for name, module in modules if isinstance(module, GradientCheckpointingLayer))
    full = tuple(f"{name}." for name in new_modules)
    names = [
        name
        for name, module in modules
        if isinstance(module, torch.nn.Linear | Conv1D) and name.startswith(blocks) and not f"{name}.".startswith(full)
    ]
    for name in names:
        parent, _, child = name.rpartition(".")
        linear = cast("torch.nn.Linear | Conv1D", model.get_submodule(name))
        on_device = linear if linear.weight.is_meta else linear.to(device)
        setattr(model.get_submodule(parent), child, StoredLinear.of(on_device, storage))
    return names


def check_products(device: torch.device, compute: str) -> None:
    """Raises InputError if `device` cannot multiply in what `compute` names."""
    if compute == "fp8" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9)):
        raise InputError(
            f"cuts.quantize.compute: fp8 products need a GPU of compute capability 8.9, this is {device}; write bf16"
        )


def stored_as(model: PreTrainedModel) -> str | None:
    """The name of the format that the model's frozen weights are in; None if they are plain."""
    return next((module.storage.name for module in model.modules() if isinstance(module, StoredLinear)), None)


def make_dense(rig: Rig) -> Rig:
    """The rig with plain layers again, adapters around them untouched. Their weights are what the run trained on: the
    stored ones, not those of the original files."""
    storage_name = stored_as(rig.model)
    if storage_name is None:
        return rig
    for name, module in list(rig.model.named_modules()):
        if isinstance(module, StoredLinear):
            parent, _, child = name.rpartition(".")
            setattr(rig.model.get_submodule(parent), child, module.dense())
    fact = f"merge: the base is as {storage_name} stored it, what the adapters were trained on, not the original"
    return replace(rig, facts=(*rig.facts, fact))
