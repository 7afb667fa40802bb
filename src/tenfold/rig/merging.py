"""Which adapted layers read the same input, found by watching the model, and their products merged."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.probe import outputs_differ, probe_hidden
from tenfold.rig.product_group import ProductGroup
from tenfold.rig.products import Dense


def merge_products(model: PreTrainedModel) -> list[int]:
    """Merge the products of adapted layers that read the same input; the sizes of the groups, in the model's order.

    A layer that shares its input with none becomes a group of one. Layers with adapter dropout, and those that keep
    their weight transposed, stay as they are. If the merged model's hidden states differ, it is put back: then [].
    """
    expected = probe_hidden(model)
    groups = [group for group in _groups(model) if all(_mergeable(layer) for layer in group)]
    before = [[layer.base.weight.data for layer in group] for group in groups]
    for group in groups:
        _merge(group)
    if outputs_differ([expected], [probe_hidden(model)]):
        for group, weights in zip(groups, before, strict=True):
            for layer, weight in zip(group, weights, strict=True):
                layer.group, layer.base.weight.data = None, weight
        return []
    return [len(group) for group in groups]


def _groups(model: PreTrainedModel) -> list[list[AdaptedLinear]]:
    """Adapted layers in the order of their calls, those together that were called in a row with one tensor."""
    calls: list[tuple[AdaptedLinear, torch.Tensor]] = []

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, AdaptedLinear)
        calls.append((module, args[0]))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, AdaptedLinear)]
    probe_hidden(model)
    for hook in hooks:
        hook.remove()
    groups: list[list[AdaptedLinear]] = []
    last: torch.Tensor | None = None
    for layer, x in calls:
        if x is last and _alike(layer, groups[-1][0]):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        last = x
    return groups


def _alike(layer: AdaptedLinear, first: AdaptedLinear) -> bool:
    return layer.scale == first.scale and layer.lora_A.shape[0] == first.lora_A.shape[0]


def _mergeable(layer: AdaptedLinear) -> bool:
    return isinstance(layer.base, torch.nn.Linear) and layer.dropout.p == 0.0


def _merge(layers: list[AdaptedLinear]) -> None:
    """One tensor for the weights of all; each layer keeps its rows of it as a view."""
    weight = torch.cat([layer.base.weight.data for layer in layers]) if len(layers) > 1 else layers[0].base.weight.data
    group = ProductGroup(tuple(layers), Dense, (weight,), layers[0].scale)
    for layer, rows in zip(layers, weight.split([layer.base.weight.shape[0] for layer in layers]), strict=True):
        layer.base.weight.data = rows
        layer.group = group
