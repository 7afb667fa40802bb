"""Weights from safetensors files straight to their place, one dense tensor in memory at a time.

Peaks while a model is loaded, with S = `READERS` x `BUFFERS_A_READER` x `CHUNK_BYTES` (128 MiB for a GPU, 16 for a
CPU), D the bytes of its largest tensor, dense, and E = `ENCODING_BYTES` x `WEIGHTS_AT_ONCE` (320 MiB on a GPU, 20 on a
CPU) where layers are stored in few bits, else 0:

    host, for a GPU     S
    host, for a CPU     what the model takes as it is stored + S + D + E
    GPU                 what the model takes as it is stored + D + E; D in both formats where the files have another

Only where the files hold, tensor for tensor, what the skeleton wants. What they do not hold, such as the tables of
rotary positions, is made by the model's own code, as transformers makes it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from tenfold.hub import INDEX, WEIGHTS
from tenfold.rig.reading import Extent, read_tensors
from tenfold.rig.rig import Source
from tenfold.rig.stored_linear import StoredLinear
from tenfold.shape.headers import stored_tensors

OLD_TABLES = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")
"""Tensors of old files that transformers makes anew and leaves unread."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""What safetensors calls the number formats of torch that models are published in."""


@dataclass(frozen=True)
class Place:
    """Where one tensor of the files goes: all names that the model has for it."""

    extent: Extent
    names: tuple[str, ...]


class _Unequal(Exception):  # no error: another way is taken
    """Why files and skeleton do not match one to one."""


def stream_weights(model: PreTrainedModel, source: Source, device: torch.device, dtype: torch.dtype | None) -> str:
    """Fill a skeleton in place, on `device` and in `dtype`; stored layers store what they get.

    Returns why it cannot be done, and then the skeleton is as it was; "" once it is done. Raises SafetensorError or
    OSError if a file is damaged.
    """
    try:
        if sys.byteorder != "little":
            raise _Unequal("the files order the bytes of a number in another way than this computer")
        if dtype is None:
            raise _Unequal("its configuration names no number format")
        if getattr(model, "_keep_in_fp32_modules_strict", None) and dtype != torch.float32:
            raise _Unequal("some of its modules stay in float32")
        places = _match(model, _weight_files(source))
        tables = list(_made_tables(model))
    except _Unequal as unequal:
        return str(unequal)
    for module, name, value in tables:
        setattr(module, name, value.to(device))
    with closing(read_tensors([place.extent for place in places], device, dtype)) as tensors:
        for place in places:
            _put(model, place.names, next(tensors))  # no name for it: it would hold the tensor while the next one comes
    model.config.dtype = dtype
    if model.can_generate():
        with suppress(OSError):  # without a file the one made of the model's configuration stays
            load = cast("Any", GenerationConfig.from_pretrained)  # its declared types know no revision of None
            model.generation_config = load(source.name, revision=source.revision)
    model.eval()
    return ""


def _weight_files(source: Source) -> list[Path]:
    """The safetensors files of a model: one, or those that its index names."""
    if single := _cached(source, WEIGHTS):
        return [single]
    index = _cached(source, INDEX)
    if index is None:
        raise _Unequal(f"it has neither {WEIGHTS} nor an index of several")
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    files = [found for name in names if (found := _cached(source, name))]
    if len(files) != len(names):
        raise _Unequal("a file that its index names is missing")
    return files


def _cached(source: Source, name: str) -> Path | None:
    try:
        found = cached_file(source.name, name, revision=source.revision)
    except OSError:
        return None
    return None if found is None else Path(found)


def _match(model: PreTrainedModel, files: list[Path]) -> list[Place]:
    """A place for every tensor of the files, in their order. Raises _Unequal unless all fit and none is missing."""
    wanted = _wanted(model)
    owners = {name: names for names in _tied(model) for name in names}
    ignored = re.compile("|".join([*OLD_TABLES, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]))
    places: list[Place] = []
    filled: set[str] = set()
    for path in files:
        with safe_open(path, framework="pt"):
            pass  # the library holds the header to the format's rules, and the file to what its header says
        for key, stored in stored_tensors(path).items():
            name = _name_of(key, wanted, model.base_model_prefix)
            if name is None and ignored.search(key):
                continue
            if name is None:
                raise _Unequal(f"{key!r} has no place in {type(model).__name__}")
            if stored.shape != wanted[name]:
                raise _Unequal(f"{key!r} has another shape")
            if stored.dtype not in DTYPES:
                raise _Unequal(f"{key!r} is in {stored.dtype}")
            names = owners.get(name, (name,))
            if not filled.isdisjoint(names):
                raise _Unequal(f"{key!r} is tied to another tensor that the files hold as well")
            filled.update(names)
            places.append(Place(Extent(path, stored.start, stored.shape, DTYPES[stored.dtype]), names))
    if missing := sorted(wanted.keys() - filled):
        raise _Unequal(f"the files lack {missing[0]!r}")
    return places


def _wanted(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the model needs; a stored layer wants its dense weight."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, StoredLinear):
            for part in module.parts:
                del wanted[f"{name}.{part}"]
            shape = (module.out_features, module.in_features)
            wanted[f"{name}.weight"] = shape[::-1] if module.fan_in_fan_out else shape
    return wanted


def _name_of(key: str, wanted: Mapping[str, tuple[int, ...]], prefix: str) -> str | None:
    """The model's name for a tensor: files of a bare backbone lack the prefix, or have it where the model has none."""
    candidates = (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}."))
    return next((name for name in candidates if name in wanted), None)


def _tied(model: PreTrainedModel) -> list[tuple[str, ...]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    return [tuple(group) for group in names.values() if len(group) > 1]


def _put(model: PreTrainedModel, names: tuple[str, ...], tensor: torch.Tensor) -> None:
    """Give a tensor to all who own it."""
    parameter: torch.nn.Parameter | None = None
    for name in names:
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        if isinstance(module, StoredLinear) and leaf == "weight":
            module.keep(tensor.T if module.fan_in_fan_out else tensor)
        elif not isinstance(getattr(module, leaf), torch.nn.Parameter):
            setattr(module, leaf, tensor)
        else:
            if parameter is None:
                parameter = torch.nn.Parameter(tensor, requires_grad=module.get_parameter(leaf).requires_grad)
            module.register_parameter(leaf, parameter)


def _made_tables(model: PreTrainedModel) -> Iterator[tuple[torch.nn.Module, str, torch.Tensor]]:
    """The buffers that no file holds, computed by the model's own initialiser, which transformers calls for them too.

    Each is made twice, over zeros and over ones: where the two differ, the initialiser left something as it was.
    Raises _Unequal then, with the model as it was.
    """
    owners = [("", model), *((n, m) for n, m in model.named_modules() if isinstance(m, PreTrainedModel) and n)]
    tables: dict[str, list[str]] = {}
    for name, _ in model.named_non_persistent_buffers():
        parent, _, leaf = name.rpartition(".")
        tables.setdefault(parent, []).append(leaf)
    for name, leaves in tables.items():
        module = model.get_submodule(name)
        near = [owner for prefix, owner in owners if not prefix or name == prefix or name.startswith(f"{prefix}.")]
        over_zeros, over_ones = (_initialised(near[-1], module, leaves, fill) for fill in (0, 1))
        for leaf, first, second in zip(leaves, over_zeros, over_ones, strict=True):
            if not torch.equal(first, second):
                raise _Unequal(f"nothing computes {name}.{leaf}")
            yield module, leaf, first


@torch.no_grad()
def _initialised(owner: PreTrainedModel, module: torch.nn.Module, leaves: list[str], fill: int) -> list[torch.Tensor]:
    """The buffers of a skeleton's module after its initialiser ran over `fill`; the module is left as it was."""
    before = {name: module.get_buffer(name) for name in leaves}
    for name, buffer in before.items():
        setattr(module, name, torch.full(buffer.shape, fill, dtype=buffer.dtype))
    cast("Any", owner)._init_weights(module)  # what each model class has for it, and from_pretrained calls
    made = [module.get_buffer(name) for name in leaves]
    for name, buffer in before.items():
        setattr(module, name, buffer)
    return made
