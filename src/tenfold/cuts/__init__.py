"""The cuts, in the order in which they are priced and applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tenfold.cuts.checkpoint import Checkpoint
from tenfold.cuts.cut import Cut, on_paper, on_rig
from tenfold.cuts.fine_tune import FineTune
from tenfold.cuts.fuse import Fuse
from tenfold.cuts.lora import LoRA
from tenfold.cuts.pack import Pack
from tenfold.cuts.quantize import Quantize
from tenfold.cuts.warm_start import WarmStart
from tenfold.errors import InputError

CUTS: tuple[type[Cut], ...] = (FineTune, WarmStart, Quantize, LoRA, Pack, Fuse, Checkpoint)
"""Weights first, then what is learned, then what is computed, then what is kept for the backward pass."""


def cut_from_dict(settings: Mapping[str, Any]) -> Cut:
    """The cut that `Cut.to_dict` described. Raises InputError on an unknown cut or setting."""
    kinds = {kind.name: kind for kind in CUTS}
    name = settings.get("cut")
    if name not in kinds:
        raise InputError(f"cut: found {name!r}, expected one of {', '.join(kinds)}")
    kind = kinds[name]
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items() if key != "cut"}
    if unknown := sorted(given.keys() - known):
        raise InputError(f"cut {name}: unknown setting {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        setting = ".".join(str(part) for part in fault["loc"])
        raise InputError(f"cut {name}: {setting}: found {fault['input']!r}: {fault['msg']}") from None


__all__ = [
    "CUTS",
    "Checkpoint",
    "Cut",
    "FineTune",
    "Fuse",
    "LoRA",
    "Pack",
    "Quantize",
    "WarmStart",
    "cut_from_dict",
    "on_paper",
    "on_rig",
]
