"""The command line inside this process, and a work folder with everything that its commands need."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import write_rows
from tenfold.cli import main
from tiny import tiny_folder

BERT = {"model": "base-bert", "task": "classify", "data": {"train": "labels.jsonl", "eval": "labels-eval.jsonl"}}
"""What turns the recipe of the work folder into one for a classifier."""


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """The lines of the error message."""
        return [line for line in self.err.splitlines() if line.startswith("tenfold: ")]


def call(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Outcome:
    """Run `tenfold` with these arguments in this process."""
    monkeypatch.setattr(sys, "argv", ["tenfold", *arguments])
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    captured = capfd.readouterr()
    return Outcome(code, captured.out, captured.err)


def base_recipe() -> dict[str, Any]:
    """A recipe whose paths are relative to the work folder: ten rows a step, two steps."""
    return {
        "model": "base",
        "task": "sft",
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "machine": {"name": "local", "usd_per_hour": 1.0},
        "cuts": {"lora": {"rank": 2}},
        "train": {"max_steps": 2, "batch_size": 10, "learning_rate": 0.01, "save_every_steps": 1},
        "output": {"folder": "run", "ledger": "ledger.sqlite"},
    }


def write_recipe(folder: Path, changes: dict[str, Any] | None = None) -> None:
    """recipe.yaml with `changes`: sections are merged, None removes a key."""
    recipe = base_recipe()
    for key, value in (changes or {}).items():
        merged = {**recipe[key], **value} if isinstance(value, dict) and isinstance(recipe.get(key), dict) else value
        recipe[key] = {k: v for k, v in merged.items() if v is not None} if isinstance(merged, dict) else merged
    (folder / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}))


def fill(folder: Path) -> None:
    """Models, data, a recipe, and a finished run of it in `done`, with its plan in plan.json."""
    import tenfold

    folder.mkdir()
    tiny_folder(folder / "base", "llama")
    tiny_folder(folder / "base-bert", "bert")
    for task, name, rows, seed in (("sft", "train", 40, 0), ("sft", "eval", 12, 1), ("classify", "labels", 40, 0)):
        write_rows(folder / f"{name}.jsonl", task, rows, seed)
    write_rows(folder / "labels-eval.jsonl", "classify", 12, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_recipe(folder, {"output": {"folder": "done"}})
        plan = tenfold.plan(folder / "recipe.yaml")
        plan.write(folder / "plan.json")
        tenfold.train(plan)
    write_recipe(folder)


class Workplace:
    """A folder that is made once and put back before each test; always at the same path, which runs remember."""

    def __init__(self, folder: Path, original: Path) -> None:
        self.folder, self._original = folder, original
        fill(folder)
        shutil.copytree(folder, original)

    def reset(self) -> Path:
        """The folder as it was made."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._original, self.folder)
        return self.folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of the object in `path`; None removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file in `folder`, hidden ones included; folders as empty."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
