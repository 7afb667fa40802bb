"""Reading a shape: config.json and the headers of safetensors files, without reading a weight."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from tenfold.errors import InputError
from tenfold.hub import CONFIG, CONFIG_SECONDS, INDEX, WEIGHTS, OutOfReach, fetch, hub, is_known, offline
from tenfold.shape.headers import stored_tensors
from tenfold.shape.shape import Shape, Stored, shape_from_config

NO_PARAMETERS = ("position_ids", "inv_freq", ".attn.bias", ".masked_bias")
"""Buffers that old checkpoints store beside the weights."""

OTHER_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
"""Weights of a multimodal model that a text model does not load."""

TASK_HEADS = (
    "cls.",
    "lm_head.",
    "classifier.",
    "pre_classifier.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "qa_outputs.",
    "decoder.",
    "head.",
    "score.",
)
"""Weights on top of an encoder, which a new task replaces."""

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "F8_E4M3": "float8"}


def read_shape(name: str, revision: str | None = None) -> Shape:
    """The shape of a model folder or Hugging Face id (cache first, then the hub unless offline).

    Raises InputError if there is no config.json, it lacks a size, or a weight file is damaged.
    """
    config_path = _find(name, CONFIG, revision)
    if config_path is None:
        raise InputError(_not_found(name))
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{config_path}: not readable as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise InputError(f"{config_path}: found no mapping of settings; is it a model's config.json?")
    folder = config_path.parent
    shape = shape_from_config(name, config, folder)
    return shape_from_config(name, config, folder, _stored(folder, shape))


def _not_found(name: str) -> str:
    if Path(name).is_dir():
        return f"model: {name!r}: the folder has no config.json; name the folder that save_pretrained wrote"
    if _is_path(name):
        return f"model: {name!r}: no such folder; check the spelling"
    if offline():
        return f"model: {name!r}: not in the Hugging Face cache, and HF_HUB_OFFLINE is set; download it first"
    if not is_known():
        return (
            f"model: {name!r}: no such folder, not in the Hugging Face cache, and {hub()} cannot be reached; name a"
            " folder, or try again with a network"
        )
    return f"model: {name!r}: no such folder, nor on the Hugging Face hub or in its cache; check the spelling"


def _is_path(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def _find(name: str, file: str, revision: str | None) -> Path | None:
    """A file of a model, or None: from the folder, the cache, or the hub."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    if _is_path(name):
        return None
    try:
        return fetch(name, file, revision, CONFIG_SECONDS)
    except ImportError as error:
        raise InputError(
            f"model: {name!r}: no such folder; Hugging Face ids need pip install 'tenfold[train]'"
        ) from error
    except OutOfReach as error:
        if offline() or not is_known():
            return None
        raise InputError(
            f"model: {name!r}: no such folder, not in the Hugging Face cache, and {hub()} {error}; try again later"
        ) from None


def _stored(folder: Path, shape: Shape) -> Stored | None:
    """What the headers of all weight files of `folder` say; None if there are none, or an index names absent ones."""
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: not an index of weight files; download the model again") from error
        files = [folder / str(name) for name in names]
    else:
        files = [folder / WEIGHTS]
    if not all(path.is_file() for path in files):
        return None
    count, size, by_dtype = 0, 0, dict[str, int]()
    for path in files:
        for name, tensor in stored_tensors(path).items():
            if not _belongs(name, shape):
                continue
            numbers = prod(tensor.shape)
            count, size = count + numbers, size + tensor.end - tensor.start
            by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + numbers
    if not by_dtype:
        return None
    commonest = max(by_dtype, key=lambda dtype: by_dtype[dtype])
    return Stored(count, size, DTYPES.get(commonest, commonest.lower()))


def _belongs(tensor: str, shape: Shape) -> bool:
    """`tensor` is a weight of the model without a task head; a tied head is stored once at most."""
    if tensor.endswith(NO_PARAMETERS) or tensor.startswith(OTHER_PARTS):
        return False
    if shape.kind == "encoder":
        unused_pooler = shape.model_type != "bert" and "pooler." in tensor
        return not tensor.startswith(TASK_HEADS) and not unused_pooler
    return not (shape.tied_embeddings and tensor == "lm_head.weight")
