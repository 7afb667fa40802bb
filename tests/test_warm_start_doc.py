"""docs/warm-start.md, followed line by line on a tiny model and a small domain."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tenfold.cuts.warm_start import Method
from tenfold.recipe import WarmStartWish
from vocabularies import domain_texts, growing_folder, plain_texts, write_texts

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "warm-start.md").read_text()
BLOCKS = re.findall(r"```(yaml|sh|python)\n(.*?)```", TEXT, re.S)


def table(heading: str) -> list[str]:
    """The names in the first column of the table that `heading` begins."""
    start = TEXT.index(heading)
    return re.findall(r"^\| (`[^|]*`)", TEXT[start:].split("\n\n", 1)[0], re.M)


@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    from tenfold.cli import main

    growing_folder(tmp_path / "model")
    write_texts(tmp_path / "medical.jsonl", domain_texts(60))
    write_texts(tmp_path / "old.jsonl", plain_texts(20))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for kind, block in BLOCKS:
        if kind == "yaml":
            (tmp_path / "recipe.yaml").write_text(block)
        elif kind == "python":
            exec(compile(block, "warm-start.md", "exec"), names)  # noqa: S102
        else:
            for line in block.splitlines():
                monkeypatch.setattr("sys.argv", shlex.split(line, comments=True))
                try:
                    main()
                except SystemExit as ended:
                    assert ended.code in (None, 0), line
    assert isinstance(names["answer"], str)
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["retention"]["after"] is not None
    assert "loss_per_byte" in {item["metric"] for item in receipt["quality"]}
    assert json.loads((tmp_path / "tokens.json").read_text())
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_every_setting_and_every_method_is_described() -> None:
    settings = re.findall(r"`(\w+)`", " ".join(table("| key |")))
    assert set(settings) == set(WarmStartWish.model_fields)
    methods = re.findall(r"`(\w+)`", " ".join(table("| a new row starts as |")))
    assert set(methods) == set(Method.__args__)  # type: ignore[attr-defined]
    assert f"`{WarmStartWish().initialise}`, or one of" in TEXT


def test_the_recipe_is_short() -> None:
    (recipe,) = (block for kind, block in BLOCKS if kind == "yaml")
    assert set(yaml.safe_load(recipe)["cuts"]["warm_start"]) == {"old_text"}
