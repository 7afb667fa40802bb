"""Which adapted layers read the same input, found by watching the model, and their products merged."""

from __future__ import annotations

from typing import cast

import torch
from transformers import PreTrainedModel

from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.operands import Dense, Fp8, Operand, Stored, StoredFp8, fp8_rows
from tenfold.rig.probe import outputs_differ, probe_hidden
from tenfold.rig.product_group import ProductGroup
from tenfold.rig.rig import Rig
from tenfold.rig.storage import Fp8 as Fp8Storage
from tenfold.rig.stored_linear import StoredLinear


def merge_products(rig: Rig) -> list[int]:
    """Merge the products of adapted layers that read the same input; the sizes of the groups, in the model's order.

    A layer that shares its input with none becomes a group of one. Layers with adapter dropout, and those that keep
    their weight transposed, stay as they are. If the merged model's hidden states differ, it is put back: then [].
    Where frozen products are to be computed in fp8 they differ by design, and by more than rounding; not compared then.
    """
    model = rig.model
    expected, found = _groups(model)
    groups = [group for group in found if all(_mergeable(layer) for layer in group)]
    for group in groups:
        _merge(group, rig.frozen_compute, rig.frozen_kept)
    if rig.frozen_compute == "bf16" and outputs_differ([expected], [probe_hidden(model)]):
        for layer in (layer for group in groups for layer in group):
            layer.group = None
        return []
    return [len(group) for group in groups]


def _groups(model: PreTrainedModel) -> tuple[torch.Tensor, list[list[AdaptedLinear]]]:
    """The last hidden states of the probe, and the adapted layers in the order of their calls, those together that were
    called in a row with one tensor."""
    calls: list[tuple[AdaptedLinear, torch.Tensor]] = []

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, AdaptedLinear)
        calls.append((module, args[0]))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, AdaptedLinear)]
    hidden = probe_hidden(model)
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
    return hidden, groups


def _alike(layer: AdaptedLinear, first: AdaptedLinear) -> bool:
    same_rank = layer.lora_A.shape[0] == first.lora_A.shape[0]
    return layer.scale == first.scale and same_rank and type(layer.base) is type(first.base)


def _mergeable(layer: AdaptedLinear) -> bool:
    return isinstance(layer.base, torch.nn.Linear | StoredLinear) and layer.dropout.p == 0.0


def _merge(layers: list[AdaptedLinear], compute: str, kept: bool) -> None:
    stored = [layer.base for layer in layers if isinstance(layer.base, StoredLinear)]
    operand, parts = _stored(stored, compute, kept) if stored else _dense(layers)
    group = ProductGroup(tuple(layers), operand, parts, layers[0].scale)
    for layer in layers:
        layer.group = group


def _dense(layers: list[AdaptedLinear]) -> tuple[Operand, tuple[torch.Tensor, ...]]:
    """One tensor for the weights of all; each layer keeps its rows of it as a view."""
    bases = [cast("torch.nn.Linear", layer.base) for layer in layers]
    weight = torch.cat([base.weight.data for base in bases]) if len(bases) > 1 else bases[0].weight.data
    for base, rows in zip(bases, weight.split([base.out_features for base in bases]), strict=True):
        base.weight.data = rows
    return Dense(), (weight,)


def _stored(bases: list[StoredLinear], compute: str, kept: bool) -> tuple[Operand, tuple[torch.Tensor, ...]]:
    """fp8 codes multiply as they are; other formats are made dense, or fp8, in each pass unless that is kept."""
    storage, names = bases[0].storage, bases[0].part_names
    if compute == "bf16":
        if kept:
            return Dense(), (torch.cat([base.weight for base in bases]),)
        return Stored(storage, names), tuple(part for base in bases for part in base.parts.values())
    if isinstance(storage, Fp8Storage) or kept:
        codes, scale = _fp8_codes(bases)
        return Fp8(), (codes, scale, *([codes.t().contiguous()] if kept else []))
    parts: list[torch.Tensor] = []
    for base in bases:
        _, scale = fp8_rows(base.weight)
        parts += [*base.parts.values(), scale.flatten()]
    return StoredFp8(storage, names), tuple(parts)


def _fp8_codes(bases: list[StoredLinear]) -> tuple[torch.Tensor, torch.Tensor]:
    """fp8 [N, K] and scale [N] of all layers; where they are stored so, the layers share this memory."""
    if isinstance(bases[0].storage, Fp8Storage):
        codes = torch.cat([base.parts["codes"] for base in bases])
        scale = torch.cat([base.parts["scale"].flatten() for base in bases])
        _share(bases, codes, scale)
        return codes, scale
    codes, scale = fp8_rows(torch.cat([base.weight for base in bases]))
    return codes, scale.flatten()


def _share(bases: list[StoredLinear], codes: torch.Tensor, scale: torch.Tensor) -> None:
    """Let each layer keep its rows as views, so that they lie in memory once."""
    widths = [base.out_features for base in bases]
    for base, own_codes, own_scale in zip(bases, codes.split(widths), scale.split(widths), strict=True):
        base.register_buffer("codes", own_codes)
        base.register_buffer("scale", own_scale[:, None])
