"""Runs of tiny models that die where a test wants it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tenfold
from jobs import make_recipe
from tenfold.planner import Plan


class Died(BaseException):
    """Stands for a kill: nothing in the product catches it, and no code of the run comes after it."""


def plan_of(folder: Path, name: str = "run", task: str = "sft", family: str = "llama", **sections: Any) -> Plan:
    """A plan of ten steps; a checkpoint after every second, an evaluation after every fifth."""
    train = {"log_every_steps": 1, "save_every_steps": 2, "eval_every_steps": 5, **sections.pop("train", {})}
    output = {"folder": str(folder / name)}
    return tenfold.plan(make_recipe(folder, task, family, train=train, output=output, **sections))


def weights(folder: Path, name: str = "run") -> dict[str, torch.Tensor]:
    """The adapter of a finished run."""
    return load_file(folder / name / "adapter-last" / "adapter_model.safetensors")


def same_weights(folder: Path, one: str, other: str) -> bool:
    """Whether two runs ended at the same bits."""
    expected, found = weights(folder, one), weights(folder, other)
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def die_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """Die when `owner.name` is called for the `call`-th time, counted from 1."""
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Died
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)
