"""Which machines can do what a recipe forces."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold.errors import InputError
from tenfold.machine import Machine, find_compiler
from tenfold.recipe import Recipe
from tenfold.recipe.schema import FuseWish, QuantizeWish


def capable(recipe: Recipe, machines: Sequence[Machine]) -> Sequence[Machine]:
    """The machines that can do every forced cut, and the optimizer.

    Raises InputError, with the next best setting, if no machine is left.
    """
    quantize, fuse = recipe.cuts.quantize, recipe.cuts.fuse
    if isinstance(quantize, QuantizeWish) and quantize.compute == "fp8":
        able = [machine for machine in machines if machine.supports_fp8]
        if not able:
            raise InputError(
                f"cuts.quantize.compute: fp8 products need a GPU of compute capability 8.9 or later, {_what(machines)};"
                " write bf16"
            )
        machines = able
    if isinstance(fuse, FuseWish) and fuse.compile:
        able = [machine for machine in machines if machine.vendor_kind == "cuda" and machine.supports_bf16]
        if not able:
            raise InputError(
                f"cuts.fuse.compile: compiled layers need a GPU of compute capability 8.0 or later, {_what(machines)};"
                " write false, which keeps the chunked loss"
            )
        machines = able
    if recipe.train.optimizer == "adamw_8bit_split":
        able = [machine for machine in machines if machine.dtype == "bfloat16"]
        if not able:
            raise InputError(
                "train.optimizer: adamw_8bit_split needs hardware for bfloat16, and"
                f" {'this machine has' if len(machines) == 1 else 'the allowed machines have'} none; write adamw_8bit"
            )
        machines = able
    _check_compiler(recipe, machines)
    return machines


def _what(machines: Sequence[Machine]) -> str:
    first = machines[0]
    has = "is a CPU" if first.compute_capability is None else f"has {first.compute_capability}"
    return (
        f"and {first.name} {has}" if len(machines) == 1 else f"and none of the {len(machines)} allowed machines is one"
    )


def _check_compiler(recipe: Recipe, machines: Sequence[Machine]) -> None:
    """torch.compile calls a C compiler; whether another computer has one is not known here."""
    here = recipe.machine.name == "local" and any(machine.vendor_kind == "cuda" for machine in machines)
    fuse = recipe.cuts.fuse
    if not here or find_compiler("cuda") is not None:
        return
    if isinstance(fuse, FuseWish) and fuse.compile:
        raise InputError(
            "cuts.fuse.compile: torch.compile finds no C compiler on this computer; install gcc or clang, set CC, or"
            " write false, which keeps the chunked loss"
        )
