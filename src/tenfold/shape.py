"""A model on paper: sizes from config.json and safetensors headers, without torch and without reading a weight."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from tenfold.errors import InputError

Kind = Literal["decoder", "encoder"]

ENCODERS = {"bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "electra", "camembert", "mpnet", "deberta-v2"}
"""Values of `model_type` whose attention sees both ways."""

FUSED_QKV = {"phi3", "gpt2", "modernbert"}
FUSED_GATE_UP = {"phi3", "modernbert"}
QK_NORM = {"qwen3", "gemma3_text", "gemma3", "olmo2"}
POST_NORMS = {"gemma2", "gemma3_text", "gemma3"}
LAYER_NORM = {*ENCODERS, "gpt2", "gpt_neox", "gptj", "opt", "phi", "bloom", "falcon", "starcoder2"}
PLAIN_MLP = {*ENCODERS - {"modernbert"}, "gpt2", "gpt_neox", "gptj", "opt", "phi", "bloom", "falcon", "starcoder2"}

NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "dim", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
}
"""What the same number is called in different families' config.json."""


@dataclass(frozen=True)
class LinearShape:
    """A linear layer of one block."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that memory, FLOPs and adapters follow from."""

    name: str
    folder: Path | None
    """Where its files are; None if only the configuration is known."""
    model_type: str
    kind: Kind
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    gated_mlp: bool
    tied_embeddings: bool
    norm: Literal["rms", "layer"]
    activation: str
    qk_norm: bool
    post_norms: bool
    attention_dropout: float
    hidden_dropout: float
    block_linears: tuple[LinearShape, ...]
    parameters: int
    """All weights without a task head: as the safetensors headers say, else by the formulas here."""
    weights_bytes_on_disk: int | None
    dtype_on_disk: str

    @property
    def block_parameters(self) -> int:
        """Weights of all blocks' linear layers: what the bulk of the FLOPs goes through."""
        return self.layers * sum(linear.in_features * linear.out_features for linear in self.block_linears)

    @property
    def head_parameters(self) -> int:
        """Weights of the language-model head: vocabulary x hidden size."""
        return self.vocab_size * self.hidden_size


def read_shape(name: str, revision: str | None = None) -> Shape:
    """The shape of a model folder or Hugging Face id (cache first, then the hub unless offline).

    Raises InputError if there is no config.json, or it lacks a size.
    """
    config_path = _file(name, "config.json", revision)
    if config_path is None:
        where = "no such folder, and" if "/" in name or name.startswith(".") else "no such folder and"
        raise InputError(f"model: {name!r}: {where} not in the Hugging Face cache or on the hub; check the spelling, "
                         "or download it first where there is no network")  # fmt: skip
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{config_path}: not readable as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise InputError(f"{config_path}: found no mapping of settings; is it a model's config.json?")
    folder = config_path.parent
    return shape_from_config(name, config, folder, _header_totals(folder))


def shape_from_config(
    name: str, config: Mapping[str, Any], folder: Path | None = None, totals: tuple[int, int, str] | None = None
) -> Shape:
    """The shape that a config.json describes; `totals` is (parameters, bytes, dtype) from the weights' headers.

    Raises InputError naming the size that is missing.
    """
    nested = config.get("text_config")
    config = {**config, **nested} if isinstance(nested, dict) else config
    kind_name = str(config.get("model_type", ""))
    sizes = {key: _size(name, config, key, names) for key, names in NAMES.items()}
    hidden, heads = sizes["hidden_size"], sizes["heads"]
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    linears = _block_linears(kind_name, hidden, sizes["intermediate_size"], heads * head_dim, kv_heads * head_dim)
    shape = Shape(
        name=name,
        folder=folder,
        model_type=kind_name,
        kind="encoder" if kind_name in ENCODERS else "decoder",
        kv_heads=kv_heads,
        head_dim=head_dim,
        gated_mlp=kind_name not in PLAIN_MLP,
        tied_embeddings=bool(config.get("tie_word_embeddings", kind_name in {"gpt2", "gemma3_text", "gemma2", "gemma"})),
        norm="layer" if kind_name in LAYER_NORM else "rms",
        activation=str(config.get("hidden_act") or config.get("activation_function") or config.get("activation") or "silu"),
        qk_norm=kind_name in QK_NORM,
        post_norms=kind_name in POST_NORMS,
        attention_dropout=_dropout(config, ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")),
        hidden_dropout=_dropout(config, ("hidden_dropout_prob", "dropout", "resid_pdrop")),
        block_linears=linears,
        parameters=0,
        weights_bytes_on_disk=None if totals is None else totals[1],
        dtype_on_disk=str(config.get("dtype") or config.get("torch_dtype") or "float32") if totals is None else totals[2],
        **sizes,
    )
    count = totals[0] if totals is not None else shape.block_parameters + _rest(shape)
    return Shape(**{**vars(shape), "parameters": count})


def _block_linears(model_type: str, hidden: int, ffn: int, q: int, kv: int) -> tuple[LinearShape, ...]:
    if model_type in FUSED_QKV:
        attention = [LinearShape("qkv", hidden, q + 2 * kv)]
    else:
        attention = [LinearShape("q", hidden, q), LinearShape("k", hidden, kv), LinearShape("v", hidden, kv)]
    attention.append(LinearShape("o", q, hidden))
    if model_type in FUSED_GATE_UP:
        mlp = [LinearShape("gate_up", hidden, 2 * ffn)]
    elif model_type in PLAIN_MLP:
        mlp = [LinearShape("up", hidden, ffn)]
    else:
        mlp = [LinearShape("gate", hidden, ffn), LinearShape("up", hidden, ffn)]
    return (*attention, *mlp, LinearShape("down", ffn, hidden))


def _rest(shape: Shape) -> int:
    """Embeddings, norms and biases where no header says: right to a fraction of a percent."""
    tables = 1 if shape.tied_embeddings or shape.kind == "encoder" else 2
    learned_positions = shape.norm == "layer" and shape.model_type != "modernbert"
    rows = tables * shape.vocab_size + (shape.max_positions if learned_positions else 0)
    norms = (2 * shape.layers + 1) * (2 if shape.norm == "layer" else 1)
    biases = shape.layers * sum(x.out_features for x in shape.block_linears) if learned_positions else 0
    return rows * shape.hidden_size + norms * shape.hidden_size + biases


def _size(name: str, config: Mapping[str, Any], key: str, names: tuple[str, ...]) -> int:
    for candidate in names:
        if isinstance(value := config.get(candidate), int) and not isinstance(value, bool) and value > 0:
            return value
    if key == "intermediate_size" and config.get("model_type") == "gpt2":
        return 4 * int(config["n_embd"])
    raise InputError(f"model: {name!r}: its config.json has no {names[0]}; tenfold cannot plan a model without it")


def _dropout(config: Mapping[str, Any], names: tuple[str, ...]) -> float:
    return next((float(config[name]) for name in names if isinstance(config.get(name), int | float)), 0.0)


def _file(name: str, file: str, revision: str | None) -> Path | None:
    """A file of a model, or None: from the folder, the cache, or the hub."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    if Path(name).is_absolute() or name.startswith((".", "~")):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = any(os.environ.get(key, "0") not in ("", "0") for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        return None


def _header_totals(folder: Path) -> tuple[int, int, str] | None:
    """(parameters, bytes, commonest dtype) over all safetensors headers of a folder; None without any."""
    files = sorted(folder.glob("*.safetensors"))
    count, size, by_dtype = 0, 0, dict[str, int]()
    for path in files:
        for name, entry in _read_header(path).items():
            if name == "__metadata__" or name.endswith(("position_ids", "inv_freq")):
                continue
            numbers = prod(entry["shape"])
            count += numbers
            size += entry["data_offsets"][1] - entry["data_offsets"][0]
            by_dtype[entry["dtype"]] = by_dtype.get(entry["dtype"], 0) + numbers
    if not files or not by_dtype:
        return None
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    commonest = max(by_dtype, key=lambda dtype: by_dtype[dtype])
    return count, size, names.get(commonest, commonest.lower())


def _read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: 8 bytes of length, then the JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:  # the format's own limit
            raise InputError(f"{path}: not a safetensors file, its header claims {length:,} bytes")
        try:
            return json.loads(file.read(length))
        except ValueError as error:
            raise InputError(f"{path}: damaged safetensors header; download the file again") from error
