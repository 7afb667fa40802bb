"""The model that a run trains on: the one that its recipe names, or a plain folder made of it once by a warm start.

Adapters name that folder as their base, so that whoever loads them finds tables of the right size and the tokenizer
that goes with them; and a run that is continued finds what it began with.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tenfold.cuts import WarmStart
from tenfold.data import training_texts
from tenfold.data.tokenizer import Tokenizer
from tenfold.durable import write_folder
from tenfold.errors import InputError
from tenfold.export.adapter import save_tokenizer
from tenfold.export.base_hash import BaseHash, model_folder
from tenfold.recipe import Recipe
from tenfold.rig.model import build_rig, load_pretrained, rig_around
from tenfold.rig.rig import Rig, Source
from tenfold.rig.warm.start import RECORD, Change, change_model, plain_dict, read_change
from tenfold.rig.warm.vocabulary import new_tokenizer
from tenfold.run.retention import (
    OldDomain,
    fitting,
    longest_tokens,
    mean_states,
    nats_per_byte,
    old_texts,
    written_texts,
)
from tenfold.vocabulary import Extension

RETENTION = "retention.json"


@dataclass(frozen=True)
class Base:
    """What a run trains on."""

    source: Source
    hash: BaseHash
    """Of its weights."""
    named_hash: BaseHash
    """Of the weights of the model that the recipe names."""
    old_domain: OldDomain | None = None
    """Where a warm start has changed it; not of an encoder without texts, since it cannot write any."""


def named_base(recipe: Recipe, begun: BaseHash | None = None) -> Base:
    """The model of `recipe` as it is; its hash may have `begun`."""
    source = Source(recipe.model.name, recipe.model.revision)
    folder = model_folder(source.name, source.revision)
    weights = begun if begun is not None and begun.folder == folder else BaseHash(folder)
    return Base(source, weights, weights)


def changed_base(
    recipe: Recipe, cut: WarmStart, folder: Path, device: torch.device, dtype: torch.dtype, begun: BaseHash | None
) -> Base:
    """The model of `recipe` as `cut` changes it, in `folder`: read if it is there, else made."""
    named = named_base(recipe, begun)
    found = read_change(folder)
    if found is not None and found.cut != plain_dict(cut):
        raise InputError(
            f"{folder}: was made by another warm start, and adapters may name it; name a new output.folder, or delete"
            " this one to start over"
        )
    if found is None:
        texts = training_texts(recipe)
        tokenizer = Tokenizer.from_transformers(recipe.model.name, recipe.model.revision)
        _check_tokenizer(named.source, cut, tokenizer, texts[:20])
        torch.manual_seed(recipe.train.seed)  # what a checkpoint lacks is drawn
        rig = replace(_load(recipe, device), dtype=dtype)
        domain = _before(recipe, cut, rig, tokenizer)
        torch.manual_seed(recipe.train.seed)
        rig, change = change_model(replace(rig, texts=texts), cut)
        changed = rig.tokenizer or tokenizer
        if domain is not None:
            domain = replace(domain, start=domain.score(rig, changed))
        with write_folder(folder) as writing:
            _write(rig, cut, change, domain, writing)
    return Base(Source(str(folder.absolute())), BaseHash(folder), named.named_hash, OldDomain.read(folder / RETENTION))


def _load(recipe: Recipe, device: torch.device) -> Rig:
    """The named model, whole; of a model for labels the part below its head, which is new anyway."""
    source = Source(recipe.model.name, recipe.model.revision)
    if recipe.task != "classify":
        return load_pretrained(build_rig(source, recipe.task, device=device))
    try:
        model: Any = AutoModel.from_pretrained(
            source.name, revision=source.revision, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model: cannot load {source.name!r}: {str(error).splitlines()[0]}") from error
    return replace(rig_around(model.to(device), "text"), source=source, task="classify", new_modules=())


def _before(recipe: Recipe, cut: WarmStart, rig: Rig, tokenizer: Tokenizer) -> OldDomain | None:
    """Texts of the old domain, scored by the base; None if there are none."""
    tokenizers = [tokenizer, new_tokenizer(cut, tokenizer)] if cut.changes_vocabulary else [tokenizer]
    wish = recipe.cuts.warm_start
    named = () if isinstance(wish, bool | str) else wish.old_text
    if named:
        texts, source = old_texts(named, recipe.data.columns.text), ", ".join(Path(name).name for name in named)
        texts = fitting(texts, tokenizers, longest_tokens(rig))
    elif recipe.task == "classify":
        return None
    else:
        texts, source = written_texts(rig, tokenizer), "texts that the base wrote by itself"
    if not texts:
        return None
    if recipe.task != "classify":
        return OldDomain(source, texts, "nats per byte", nats_per_byte(rig, tokenizer, texts), 0.0)
    states = mean_states(rig, tokenizer, texts)
    return OldDomain(source, texts, "cosine", 1.0, 0.0, tuple(tuple(state) for state in states.tolist()))


def _write(rig: Rig, cut: WarmStart, change: Change, domain: OldDomain | None, folder: Path) -> None:
    config = AutoConfig.from_pretrained(rig.source.name, revision=rig.source.revision, trust_remote_code=False)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    rig.model.to(stored).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    _write_tokenizer(rig.source, cut, folder)
    (folder / RECORD).write_text(json.dumps(change.to_json()) + "\n", encoding="utf-8")
    if domain is not None:
        domain.write(folder / RETENTION)


def _write_tokenizer(source: Source, cut: WarmStart, folder: Path) -> None:
    """The base's own files with the new tokens in them; or those of another tokenizer."""
    if cut.tokenizer:
        AutoTokenizer.from_pretrained(cut.tokenizer, trust_remote_code=False).save_pretrained(folder)
        return
    save_tokenizer(source, folder)
    if cut.tokens:
        path = folder / "tokenizer.json"
        file = json.loads(path.read_text(encoding="utf-8"))
        extension = Extension(file, source.name)
        for token in cut.tokens:
            extension.add(token)
        path.write_text(json.dumps(file, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_tokenizer(source: Source, cut: WarmStart, old: Tokenizer, texts: Sequence[str]) -> None:
    """Raises InputError unless transformers will divide texts as the run does: before anything is computed."""
    wanted = new_tokenizer(cut, old) if cut.changes_vocabulary else old
    with tempfile.TemporaryDirectory() as folder:
        _write_tokenizer(source, cut, Path(folder))
        loaded = Tokenizer.from_transformers(folder)
    for text in texts:
        if loaded.encode(text, True) != wanted.encode(text, True):
            key, remedy = (
                ("tokenizer", "another one") if cut.tokenizer else ("tokens", "a whole cuts.warm_start.tokenizer")
            )
            raise InputError(
                f"cuts.warm_start.{key}: transformers rebuilds this tokenizer in another way than its file says, so"
                f" that it cannot be used; name {remedy}"
            )
