"""The warm_start cut for real: a model changed once, and what is new in it allowed to learn."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from tenfold.cuts.warm_start import WarmStart
from tenfold.data.tokenizer import read_tokenizer
from tenfold.errors import InputError, NoEffect
from tenfold.rig.quantizing import stored_as
from tenfold.rig.rig import Rig
from tenfold.rig.rows import learn_rows
from tenfold.rig.warm.layers import change_layers
from tenfold.rig.warm.request import Request
from tenfold.rig.warm.vocabulary import change_vocabulary, new_tokenizer
from tenfold.vocabulary import transfer

RECORD = "warm_start.json"
"""In the folder of a changed model: what was changed, so that it is not changed twice."""


@dataclass(frozen=True)
class Change:
    """What is new in a changed model."""

    cut: dict[str, Any]
    rows: tuple[int, ...] = ()
    """Tokens whose rows of the embeddings are new."""
    modules: tuple[str, ...] = ()
    """Blocks that are."""
    facts: tuple[str, ...] = ()
    seconds: float = 0.0
    """That it took to initialise them."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in RECORD."""
        return asdict(self)


def read_change(folder: Path) -> Change | None:
    """What was changed in the model of `folder`; None if nothing was."""
    path = folder / RECORD
    if not path.is_file():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    listed = {key: tuple(values[key]) for key in ("rows", "modules", "facts")}
    return Change(cut=values["cut"], seconds=values["seconds"], **listed)


def warm_start(rig: Rig, cut: WarmStart) -> Rig:
    """The rig with its model changed, if it is not yet, and with what is new in it learning.

    Raises NoEffect if nothing would change, InputError on tokens, donors or layers that do not fit.
    """
    change = read_change(Path(rig.source.name))
    if change is None or change.cut != plain_dict(cut):
        rig, change = change_model(rig, cut)
    if change.rows:
        learn_rows(rig.model, change.rows)
    return replace(
        rig,
        rows=change.rows,
        new_modules=tuple(dict.fromkeys((*rig.new_modules, *change.modules))),
        facts=(*rig.facts, *change.facts),
    )


def with_new_blocks(rig: Rig) -> Rig:
    """A rig on a changed model with its new blocks marked, before quantize could freeze them."""
    change = read_change(Path(rig.source.name))
    return rig if change is None else replace(rig, new_modules=(*rig.new_modules, *change.modules))


def plain_dict(cut: WarmStart) -> dict[str, Any]:
    """The cut as it reads back from JSON."""
    return json.loads(json.dumps(cut.to_dict()))


def change_model(rig: Rig, cut: WarmStart) -> tuple[Rig, Change]:
    """The rig with another model, and its tokenizer; nothing learns apart yet. Raises as `warm_start` does."""
    started = time.perf_counter()
    facts: list[str] = []
    rows: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    if cut.changes_vocabulary:
        rig, request = _with_vocabulary(rig, cut)
        rows = request.transfer.new_ids
        facts.append(f"warm_start: {len(rows):,} new rows by {cut.initialise}, {len(request.transfer.kept):,} kept")
    if cut.changes_layers:
        if stored_as(rig.model) is not None:
            raise InputError("warm_start: quantized layers cannot be changed; apply warm_start before quantize")
        before = rig.model.num_parameters()
        model, modules = change_layers(rig.model, cut)
        rig = replace(rig, model=model)
        facts.append(
            f"warm_start: {model.config.num_hidden_layers} blocks, {len(modules)} of them new,"
            f" {model.num_parameters():,} parameters instead of {before:,}"
        )
    if not facts:
        raise NoEffect(f"warm_start: asks for no token and no layer of {type(rig.model).__name__}; leave it out")
    return rig, Change(plain_dict(cut), rows, modules, tuple(facts), time.perf_counter() - started)


def _with_vocabulary(rig: Rig, cut: WarmStart) -> tuple[Rig, Request]:
    model = rig.model
    if cast("Any", model).get_input_embeddings() is None:
        raise NoEffect(f"warm_start: {type(model).__name__} has no embeddings to add rows to")
    head: Any = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise InputError(
            f"cuts.warm_start: the head of {type(model).__name__} has a bias for each token, which PEFT does not carry;"
            " its layers can change, not its vocabulary"
        )
    old = read_tokenizer(rig.source.name, rig.source.revision)
    new = new_tokenizer(cut, old)
    change, seed = transfer(old, new), torch.initial_seed()
    if not change.new_ids:
        raise NoEffect(f"warm_start: {cut.tokenizer!r} has no token that the model lacks; leave it out")
    request = Request(model, change, old, new, rig.texts, cut.donor, seed, rig.dtype)
    change_vocabulary(model, request, cut.initialise)
    return replace(rig, tokenizer=new), request
