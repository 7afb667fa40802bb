"""A forced cut that the machine cannot do is refused before anything is paid, with what to write instead."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tenfold.errors import InputError
from tenfold.machine import Machine, find_machines
from tenfold.planner import capable as module
from tenfold.planner.capable import capable
from tenfold.recipe import MachineWish, recipe_from_dict

FP8 = {"quantize": {"storage": "nf4", "compute": "fp8"}, "lora": True}
COMPILE = {"fuse": {"compile": True}}


def machines(*names: str) -> list[Machine]:
    return [find_machines(MachineWish(name=name, usd_per_hour=1.0))[0] for name in names]


def kept(cuts: dict[str, Any], found: list[Machine], name: str = "auto", **train: Any) -> list[str]:
    recipe = recipe_from_dict(
        {"model": "m", "task": "sft", "data": {"train": "rows.jsonl"}, "machine": name, "cuts": cuts, "train": train}
    )
    return [machine.name for machine in capable(recipe, found)]


@pytest.mark.parametrize(
    ("cuts", "there", "left"),
    [
        ({}, ["T4", "A100 80GB", "L4"], ["T4", "A100 80GB", "L4"]),
        (FP8, ["T4", "A100 80GB", "L4"], ["L4"]),
        (COMPILE, ["T4", "A100 80GB", "L4"], ["A100 80GB", "L4"]),
        ({**FP8, **COMPILE}, ["A100 80GB", "L4"], ["L4"]),
    ],
)
def test_machines_that_can_do_it_are_left(cuts: dict[str, Any], there: list[str], left: list[str]) -> None:
    assert kept(cuts, machines(*there)) == left


@pytest.mark.parametrize(
    ("cuts", "there", "message"),
    [
        (FP8, ["A100 80GB"], "capability 8.9 or later, and A100 80GB has 8.0; write bf16"),
        (FP8, ["A100 80GB", "T4"], "and none of the 2 allowed machines is one; write bf16"),
        (COMPILE, ["T4"], "capability 8.0 or later, and T4 has 7.5; write false, which keeps the chunked loss"),
    ],
)
def test_none_left_says_why_and_what_instead(cuts: dict[str, Any], there: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        kept(cuts, machines(*there))


def test_a_missing_compiler_is_noticed_on_this_computer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_compiler", lambda kind: None)
    assert kept(COMPILE, machines("L4")) == ["L4"]
    with pytest.raises(InputError, match=re.escape("cuts.fuse.compile: torch.compile finds no C compiler")):
        kept(COMPILE, machines("L4"), name="local")
    assert kept({}, machines("L4"), name="local") == ["L4"], "left open, it is left out"


def test_split_weights_need_bfloat16() -> None:
    assert kept({}, machines("T4", "L4"), optimizer="adamw_8bit_split") == ["L4"]
    assert kept({}, machines("T4", "L4"), optimizer="adamw_8bit") == ["T4", "L4"], "the control"
    with pytest.raises(InputError, match=re.escape("needs hardware for bfloat16, and this machine has none; write")):
        kept({}, machines("T4"), optimizer="adamw_8bit_split")
