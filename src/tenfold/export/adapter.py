"""Adapter folders in PEFT's format, which PEFT, transformers and vLLM load unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer
from transformers.pytorch_utils import Conv1D

from tenfold.cuts.lora import LoRA
from tenfold.durable import write_folder
from tenfold.errors import InputError
from tenfold.export.base_hash import base_sha256, model_folder
from tenfold.rig.linear import AdaptedLinear, adapt_linears
from tenfold.rig.model import build_rig, load_pretrained
from tenfold.rig.quantizing import quantize_linears, stored_as
from tenfold.rig.rig import Rig, Source, Task
from tenfold.rig.rows import RowEmbedding, RowHead, learn_rows, row_modules
from tenfold.rig.stored_linear import StoredLinear

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
NEEDED = ("task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora")
PREFIX = "base_model.model."
"""What PEFT puts before every tensor name."""
ROWS = "token_adapter.trainable_tokens_delta"
"""What PEFT calls the rows of an embedding table that learned by themselves."""
ORIGIN = "tenfold"
"""The only key of the weights' metadata, since safetensors writes several in random order: equal runs, equal bytes."""


def adapter_weights(rig: Rig) -> dict[str, torch.Tensor]:
    """What learns, under PEFT's names: the live tensors, not copies."""
    weights: dict[str, torch.Tensor] = {}
    for name, module in rig.model.named_modules():
        if isinstance(module, AdaptedLinear):
            weights[f"{PREFIX}{name}.lora_A.weight"] = module.lora_A
            weights[f"{PREFIX}{name}.lora_B.weight"] = module.lora_B
    for name, module in _tables(rig).items():
        weights[f"{PREFIX}{name}.{ROWS}"] = module.rows
    for name in rig.new_modules:
        for key, weight in rig.model.get_submodule(name).state_dict().items():
            weights[f"{PREFIX}{name}.{key}"] = weight
    return weights


def _tables(rig: Rig) -> dict[str, RowEmbedding | RowHead]:
    """The modules with rows that learned, by path: one where head and embeddings are tied, as PEFT keeps it."""
    modules = row_modules(rig.model)
    return {
        name: module
        for place, (name, module) in enumerate(modules.items())
        if not any(module.rows is other.rows for other in list(modules.values())[:place])
    }


def adapter_config(rig: Rig, cut: LoRA) -> dict[str, Any]:
    """The fields of PEFT's LoraConfig that this adapter needs."""
    adapted = {name: module for name, module in rig.model.named_modules() if isinstance(module, AdaptedLinear)}
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if rig.task == "classify" else "CAUSAL_LM",
        "base_model_name_or_path": rig.source.name,
        "revision": rig.source.revision,
        "inference_mode": True,
        "r": cut.rank,
        "lora_alpha": cut.alpha,
        "lora_dropout": cut.dropout,
        "use_rslora": cut.rslora,
        "bias": "none",
        "fan_in_fan_out": any(_is_transposed(module.base) for module in adapted.values()),
        "target_modules": _target_names(rig, list(adapted)),
        "modules_to_save": list(rig.new_modules) or None,
        "trainable_token_indices": {name: list(rig.rows) for name in _tables(rig)} or None,
    }


def _is_transposed(base: torch.nn.Module) -> bool:
    return isinstance(base, Conv1D) or (isinstance(base, StoredLinear) and base.fan_in_fan_out)


def _target_names(rig: Rig, adapted: list[str]) -> list[str]:
    """Last names where they select exactly the adapted layers (what vLLM expects), full names otherwise."""
    short = sorted({name.rsplit(".", 1)[-1] for name in adapted})
    linear = (torch.nn.Linear, Conv1D, StoredLinear, AdaptedLinear)
    inside = tuple(f"{name}." for name in adapted)
    matched = [
        name
        for name, module in rig.model.named_modules()
        if isinstance(module, linear) and name.rsplit(".", 1)[-1] in short and not name.startswith(inside)
    ]
    return short if sorted(matched) == sorted(adapted) else sorted(adapted)


def save_adapter(rig: Rig, folder: Path, base_hash: str) -> None:
    """Write adapter, config and tokenizer to `folder`, all or nothing, replacing what was there.

    The base it names is the original one, quantized or not; how the run stored it is noted for `load_adapter`.
    """
    base = Path(rig.source.name)
    beside = base.name if base.is_dir() and base.absolute().parent == folder.absolute().parent else None
    with write_folder(folder) as writing:
        write_adapter(rig, writing, base_hash, beside)
        if beside is not None:
            (writing / "README.md").write_text(_README.format(base=beside, adapter=folder.name))
        save_tokenizer(rig.source, writing)


def write_adapter(rig: Rig, folder: Path, base_hash: str, base_beside: str | None = None) -> None:
    """Weights and configuration of the adapter as files in `folder`; `base_beside` names the base's folder where that
    lies beside it for good."""
    if rig.adapter is None:
        raise ValueError("no adapter to save: the rig was not changed by lora")
    origin: dict[str, Any] = {"base_sha256": base_hash, "labels": rig.labels}
    if base_beside is not None:
        origin["base_beside"] = base_beside
    if (stored := stored_as(rig.model)) is not None:
        origin["quantize"] = stored
    weights = {key: weight.detach().cpu().contiguous() for key, weight in adapter_weights(rig).items()}
    save_file(weights, folder / WEIGHTS, metadata={ORIGIN: json.dumps(origin, sort_keys=True)})
    (folder / CONFIG).write_text(json.dumps(adapter_config(rig, rig.adapter), indent=2) + "\n")


_README = """\
This adapter changes the model in `../{base}`. `adapter_config.json` names that folder by its path when the adapter was
written, since PEFT and transformers look for relative paths where they are started, not beside the adapter. When the
two have moved together, give PEFT the base yourself, or put its new path into `base_model_name_or_path`:

    base = AutoModelForCausalLM.from_pretrained("{base}")  # or AutoModelForSequenceClassification, with num_labels
    model = PeftModel.from_pretrained(base, "{adapter}")

`tenfold merge` finds the base beside the adapter by itself.
"""


def save_tokenizer(source: Source, folder: Path) -> None:
    """The base's tokenizer beside the weights; from the cache, if it is there: no run is to wait for a hub to save."""
    try:
        tokenizer = _tokenizer(source, local=True)
    except (OSError, ValueError):  # what transformers says of files that the cache lacks
        tokenizer = _tokenizer(source, local=False)
    tokenizer.init_kwargs["local_files_only"] = False  # else it is written down, for whoever loads this
    tokenizer.save_pretrained(folder)


def _tokenizer(source: Source, local: bool) -> Any:
    return AutoTokenizer.from_pretrained(
        source.name, revision=source.revision, local_files_only=local, trust_remote_code=False
    )


def load_adapter(folder: Path, device: str = "cpu") -> Rig:
    """The base model with the adapter of `folder` on it, quantized as it was in training.

    Raises InputError if a file is missing, a tensor does not fit, or the base is not the one it was trained on.
    """
    config, tensors, origin = _read(folder)
    if missing := [key for key in NEEDED if key not in config]:
        raise InputError(f"{folder / CONFIG}: has no {missing[0]!r}; name an adapter folder that `tenfold train` wrote")
    task: Task = "classify" if config["task_type"] == "SEQ_CLS" else "text"
    source = _base_of(folder, config, origin)
    if (found := base_sha256(model_folder(source.name, source.revision))) != origin.get("base_sha256"):
        raise InputError(
            f"{folder}: trained on a base with hash {str(origin.get('base_sha256', 'none'))[:12]}, but"
            f" {source.name!r} has {found[:12]}; give the base it was trained on"
        )
    cut = LoRA(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config["lora_dropout"],
        targets=tuple(config["target_modules"]),
        rslora=config["use_rslora"],
    )
    rig = build_rig(source, task, labels=tuple(origin.get("labels", ())), device=device)
    rig = replace(rig, new_modules=tuple(dict.fromkeys((*rig.new_modules, *(config.get("modules_to_save") or ())))))
    if "quantize" in origin:
        rig = quantize_linears(rig, origin["quantize"])
    rig = load_pretrained(rig)
    if tables := config.get("trainable_token_indices"):
        rows = tuple(next(iter(tables.values())))
        learn_rows(rig.model, rows)
        rig = replace(rig, rows=rows)
    rig = adapt_linears(rig, cut)
    place_adapter(rig, tensors, folder)
    rig.model.eval()
    return rig


def _base_of(folder: Path, config: dict[str, Any], origin: dict[str, Any]) -> Source:
    """The base that the configuration names; or where there is none any more, the folder that was beside the adapter,
    with which it has moved."""
    named = Source(config["base_model_name_or_path"], config.get("revision"))
    beside = folder.absolute().parent / str(origin.get("base_beside", ""))
    moved = "base_beside" in origin and not Path(named.name).is_dir() and beside.is_dir()
    return Source(str(beside)) if moved else named


def place_adapter(rig: Rig, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Copy tensors under PEFT's names into the rig's modules. Raises InputError unless they fit exactly."""
    places = adapter_weights(rig)
    if odd := sorted(places.keys() ^ tensors.keys()):
        what = "lacks" if odd[0] in places else "has an unexpected"
        raise InputError(f"{folder / WEIGHTS}: {what} tensor {odd[0]!r} ({len(odd)} such in all)")
    with torch.no_grad():
        for key, weight in places.items():
            if weight.shape != tensors[key].shape:
                raise InputError(
                    f"{folder / WEIGHTS}: {key!r} is {tuple(tensors[key].shape)}, the model wants {tuple(weight.shape)}"
                )
            weight.copy_(tensors[key])


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of an adapter folder under PEFT's names. Raises InputError if they cannot be read."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
    """Configuration, tensors and what `save_adapter` noted of their origin."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return config, tensors, json.loads((file.metadata() or {}).get(ORIGIN, "{}"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not an adapter folder, {CONFIG} or {WEIGHTS} is missing") from error
    except Exception as error:
        raise InputError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from error
