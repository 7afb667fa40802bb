"""Every command that README.md shows does what it says, on tiny files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import tenfold
from jobs import make_recipe, write_rows
from tenfold.calibrate.probes import probes_of
from tenfold.ledger import open_ledger

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    """The documented tenfold command lines, comments dropped."""
    lines = [line for block in fenced("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("tenfold ")]


def test_the_makefile_has_the_two_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "    make demo " in README
    assert "    make test " in README
    assert re.search(r"^demo:", makefile, re.M)
    assert re.search(r"^test:", makefile, re.M)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_documented_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would; `auto` and `--minutes` stand as documented."""
    from tenfold.cli import main

    recipe = make_recipe(tmp_path / "job", output={"folder": "runs/recipe"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "model").symlink_to(recipe["model"])
    (tmp_path / "train.jsonl").symlink_to(recipe["data"]["train"])
    axolotl = {"base_model": "model", "adapter": "lora", "datasets": [{"path": "text.jsonl", "type": "completion"}]}
    write_rows(tmp_path / "text.jsonl", "text")
    (tmp_path / "axolotl.yml").write_text(yaml.safe_dump(axolotl))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tenfold.calibrate.calibrate.ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr("tenfold.run.meter.process_age_seconds", lambda: 1.0)  # it is far older
    monkeypatch.setattr("tenfold.calibrate.calibrate.probes_of", lambda machine: probes_of(machine)[1:3])
    assert len(commands()) >= 8
    for command in commands():
        monkeypatch.setattr("sys.argv", command)
        try:
            main()
        except SystemExit as ended:
            assert ended.code in (None, 0), command
    for left in (
        "plan.json",
        "plan.html",
        "plan.sky.yaml",
        "receipt.html",
        "merged/config.json",
        "runs/recipe/receipt.json",
    ):
        assert (tmp_path / left).is_file(), left
    with open_ledger() as ledger:
        assert ledger.verify() == [], "also after a receipt was written again, with a baseline in it"


def test_the_documented_recipe_is_valid() -> None:
    (text,) = fenced("yaml")
    assert tenfold.Recipe is not None
    from tenfold.recipe import parse_recipe

    assert parse_recipe(text.removeprefix("# recipe.yaml\n")).budget.usd == 5


def test_the_documented_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tiny import tiny_model

    recipe = make_recipe(tmp_path / "job", train={"max_steps": 2, "epochs": None}, output={"folder": "run"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    input_ids = torch.randint(4, 100, (2, 9))
    names = {
        "model": tiny_model("llama", "text"),
        "input_ids": input_ids,
        "labels": input_ids.clone(),
        "attention_mask": torch.ones_like(input_ids),
    }
    blocks = fenced("python")
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    assert names["receipt"].status == "done"
    assert names["loss"].detach().item() > 0
