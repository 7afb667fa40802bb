"""Models as plain transformers folders: fully fine-tuned, or adapters merged into their base."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from tenfold.durable import write_folder
from tenfold.errors import InputError
from tenfold.export.adapter import load_adapter, save_tokenizer
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.probe import outputs_differ, probe_hidden
from tenfold.rig.quantizing import make_dense
from tenfold.rig.rig import Rig
from tenfold.rig.rows import fold_rows, folded


def save_model(rig: Rig, folder: Path) -> None:
    """Write weights, config and tokenizer to `folder`, all or nothing, replacing what was there."""
    with write_folder(folder) as writing, folded(rig.model):
        rig.model.save_pretrained(writing)
        save_tokenizer(rig.source, writing)


def merge_linears(rig: Rig) -> Rig:
    """Fold every adapter into its base weight, in float32, and put the plain layer back; a quantized base as it was
    stored. Rows that learned go into their tables."""
    rig = make_dense(rig)
    model = rig.model
    fold_rows(model)
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, AdaptedLinear)]
    for name, module in adapted:
        with torch.no_grad():
            module.base.weight.copy_(merged_weight(module))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.base)
    return rig


def merged_weight(layer: AdaptedLinear) -> torch.Tensor:
    """Base and adapter as one weight, added in float32, in the layout and number format of the base's."""
    merged = layer.delta()
    merged += layer.base.weight  # in its place: of a large layer every copy in float32 counts
    return merged.to(layer.base.weight.dtype)


def merge(adapter: Path, folder: Path) -> tuple[str, ...]:
    """Merge the adapter folder into its base and write a plain transformers folder; return what there is to say of it.

    Raises InputError if `folder` holds files, the base is not the one the adapter was trained on, or the merged model's
    hidden states are not those with the adapter.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not empty, or not a folder; name a new one for the merged model")
    transformers.logging.disable_progress_bar()
    rig = load_adapter(adapter)
    expected = probe_hidden(rig.model)
    rig = merge_linears(rig)
    if difference := outputs_differ([expected], [probe_hidden(rig.model)], _merged_in(rig)):
        raise InputError(f"{adapter}: merged, the model gives other results ({difference}); keep the adapter as it is")
    save_model(rig, folder)
    return tuple(fact.removeprefix("merge: ") for fact in rig.facts if fact.startswith("merge:"))


def _merged_in(rig: Rig) -> torch.dtype:
    """The number format that merged weights were rounded to."""
    formats = {weight.dtype for name, weight in rig.model.named_parameters() if name.endswith(".weight")}
    return next((dtype for dtype in (torch.bfloat16, torch.float16) if dtype in formats), torch.float32)
