"""`tenfold vocabulary`: sizes side by side, and tokens for a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import tenfold
from command_line import call
from vocabularies import warm_recipe


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    found = warm_recipe(tmp_path, cuts={"warm_start": "auto"})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(found))
    monkeypatch.chdir(tmp_path)
    return found


def test_larger_vocabularies_make_fewer_positions(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = call(["vocabulary", "recipe.yaml", "--json"], monkeypatch, capfd)
    assert outcome.code == 0
    found = json.loads(outcome.out)
    positions = [size["positions"] for size in found["sizes"]]
    assert positions == sorted(positions, reverse=True)
    assert found["sizes"][0]["new_tokens"] == 0
    assert found["sizes"][-1]["new_tokens"] == found["chosen"] == len(found["tokens"])
    assert all(0 < size["share_on_new_text"] < 1 for size in found["sizes"][1:])
    text = call(["vocabulary", "recipe.yaml"], monkeypatch, capfd).out
    assert f"{found['chosen']} tokens pay" in text


def test_the_chosen_tokens_stand_in_a_recipe(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["vocabulary", "recipe.yaml", "--out", "tokens.json"], monkeypatch, capfd).code == 0
    listed = json.loads(Path("tokens.json").read_bytes())
    for wish in ({"tokens": "tokens.json"}, True):
        plan = tenfold.plan({**recipe, "cuts": {"lora": True, "warm_start": wish}})
        assert next(cut["tokens"] for cut in plan.cuts if cut["cut"] == "warm_start") == tuple(listed)
        assert plan.vocabulary is not None
        assert plan.vocabulary.new_rows == len(listed)
    plain = tenfold.plan(recipe)
    assert plain.vocabulary is None
    assert any(sentence.startswith("warm_start off: only a recipe asks for it") for sentence in plain.why)


def test_only_json_is_written(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = call(["vocabulary", "recipe.yaml", "--out", "tokens.txt"], monkeypatch, capfd)
    assert outcome.code == 2
    assert outcome.said == ["tenfold: --out: found 'tokens.txt', expected a name that ends in .json"]
    assert not Path("tokens.txt").exists()
