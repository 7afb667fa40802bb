"""Other blocks for a model: kept, taken from a donor, grown without changing what it computes, narrowed.

The changed model is built anew from a changed configuration, so that numbers of layers and their kinds are in order,
and its weights are those of the old one under other names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.cuts.warm_start import WarmStart
from tenfold.data.account import plain
from tenfold.errors import InputError
from tenfold.rig.precision import cast_weights
from tenfold.rig.warm.narrow import narrowed
from tenfold.shape.families import FAMILIES, Family
from tenfold.shape.shape import NAMES

PER_LAYER = ("layer_types", "max_window_layers", "mlp_layer_types")
"""Settings of a configuration that speak of single layers."""


@dataclass(frozen=True)
class Block:
    """Where one block of the new model comes from."""

    number: int
    """In the model that it comes from."""
    from_donor: bool = False
    is_new: bool = False
    """A copy of it whose two sums into the residual stream are 0: it learns in full, and changes nothing at first."""


def order_of_blocks(cut: WarmStart, layers: int, donor_layers: int = 0) -> tuple[Block, ...]:
    """The blocks of the new model. Raises InputError on a number that a model does not have."""
    for key, numbers, count in (
        ("keep_layers", cut.keep_layers, layers),
        ("take_layers", cut.take_layers, donor_layers),
    ):
        if wrong := [number for number in numbers if not 0 <= number < count]:
            raise InputError(f"cuts.warm_start.{key}: found {wrong[0]}, but the model has blocks 0 to {count - 1}")
    kept = [Block(number) for number in cut.keep_layers or range(layers)]
    kept += [Block(number, from_donor=True) for number in cut.take_layers]
    behind = [-(-(place + 1) * len(kept) // cut.grow_layers) - 1 for place in range(cut.grow_layers)]
    found: list[Block] = []
    for place, block in enumerate(kept):
        found.append(block)
        found += [Block(block.number, block.from_donor, is_new=True)] * behind.count(place)
    return tuple(found)


def change_layers(model: PreTrainedModel, cut: WarmStart) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model with other blocks, and the names of those that are new."""
    path, layers = blocks_of(model)
    donor = _load_donor(model, cut) if cut.take_layers else None
    order = order_of_blocks(cut, layers, blocks_of(donor)[1] if donor is not None else 0)
    family = _family(model)
    if cut.grow_layers and family.post_norm:
        raise InputError(
            f"cuts.warm_start.grow_layers: {type(model).__name__} normalises behind its sums, so that no block leaves"
            " them as they were; grow a model with norms before its layers"
        )
    config = _changed_config(model.config, order, layers, None if donor is None else donor.config)
    weights = _renamed(model, donor, path, order)
    names = tuple(f"{path}.{place}" for place, block in enumerate(order) if block.is_new)
    for name in names:
        _silence(weights, name, family)
    changed = type(model)(config)
    cast_weights(changed, model.dtype)
    changed.load_state_dict(weights, strict=True)
    if cut.changes_width:
        changed = narrowed(changed, cut, path, family)
    changed.to(model.device)  # pyright: ignore[reportArgumentType]  # transformers' wrapper loses the types
    if hasattr(model, "generation_config"):  # that it stops where it did
        changed.generation_config = model.generation_config
    return changed.train(model.training), names


def blocks_of(model: PreTrainedModel) -> tuple[str, int]:
    """The path of the list of blocks, and how many there are."""
    names = [name for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    paths = {name.rpartition(".")[0] for name in names}
    if len(paths) != 1:
        raise InputError(
            f"cuts.warm_start: {type(model).__name__} has {len(paths)} lists of blocks; only vocabulary can change here"
        )
    return paths.pop(), len(names)


def is_block(module: torch.nn.Module) -> bool:
    """Whether it is one of a model's blocks."""
    return isinstance(module, GradientCheckpointingLayer)


def _family(model: PreTrainedModel) -> Family:
    kind = str(model.config.model_type)
    if kind not in FAMILIES:
        raise InputError(
            f"cuts.warm_start: the layers of a {kind} are not known by name ({', '.join(FAMILIES)} are); change its"
            " vocabulary alone"
        )
    return FAMILIES[kind]


def _load_donor(model: PreTrainedModel, cut: WarmStart) -> PreTrainedModel:
    """The donor of layers. Raises InputError unless it has the same architecture and sizes."""
    if not cut.donor:
        raise InputError("cuts.warm_start.take_layers: needs a donor; name a model in cuts.warm_start.donor")
    try:
        config = AutoConfig.from_pretrained(cut.donor, trust_remote_code=False)
        if config.model_type != model.config.model_type:
            raise InputError(
                f"cuts.warm_start.donor: {plain(cut.donor)} is a {config.model_type}, and the model is a"
                f" {model.config.model_type}; blocks can only come from the same architecture"
            )
        donor = cast("Any", type(model)).from_pretrained(
            cut.donor, dtype=model.dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"cuts.warm_start.donor: cannot load {plain(cut.donor)}: {str(error).splitlines()[0]}"
        ) from error
    theirs, ours = _block_shapes(donor), _block_shapes(model)
    if odd := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise InputError(
            f"cuts.warm_start.donor: {odd[0]} of {plain(cut.donor)} is {theirs.get(odd[0])}, and that of the model is"
            f" {ours.get(odd[0])}; blocks can only come from a model of the same width"
        )
    return donor


def _block_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    path, _ = blocks_of(model)
    return {name: tuple(weight.shape) for name, weight in model.get_submodule(f"{path}.0").named_parameters()}


def _changed_config(
    config: PreTrainedConfig, order: Sequence[Block], layers: int, donor: PreTrainedConfig | None
) -> PreTrainedConfig:
    settings = config.to_dict()
    theirs = {} if donor is None else donor.to_dict()
    for key in PER_LAYER:
        if isinstance(values := settings.get(key), list) and len(values) == layers:
            settings[key] = [(theirs[key] if block.from_donor else values)[block.number] for block in order]
    count = next(name for name in NAMES["layers"] if name in settings)
    return type(config).from_dict({**settings, count: len(order)})


def _renamed(
    model: PreTrainedModel, donor: PreTrainedModel | None, path: str, order: Sequence[Block]
) -> dict[str, torch.Tensor]:
    """The state of the new model: everything outside of the blocks, then each block from where it comes."""
    inside = re.compile(rf"{re.escape(path)}\.(\d+)\.(.*)")
    ours = dict(model.state_dict())
    theirs = {} if donor is None else donor.state_dict()
    found = {name: tensor for name, tensor in ours.items() if not inside.fullmatch(name)}
    for place, block in enumerate(order):
        start = f"{path}.{block.number}."
        for name, tensor in (theirs if block.from_donor else ours).items():
            if name.startswith(start):
                found[f"{path}.{place}.{name.removeprefix(start)}"] = tensor
    return found


def _silence(weights: dict[str, torch.Tensor], block: str, family: Family) -> None:
    """Let a block add 0 to the residual stream, after attention and after feed-forward (arXiv 2401.02415)."""
    for role in ("o", "down"):
        for part in ("weight", "bias"):
            name = f"{block}.{family.modules[role]}.{part}"
            if name in weights:
                weights[name] = torch.zeros_like(weights[name])
