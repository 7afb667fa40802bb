"""Code that comes with a model is never run: not by a recipe's wish, not by a model's own, not by anybody's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import call, edit_json, write_recipe

MODULE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import PreTrainedConfig
class MartianConfig(PreTrainedConfig):
    model_type = "martian"
"""


def with_code(work: Path) -> Path:
    """The base model as one that brings its own classes; the file that its code would leave."""
    marker = work / "it ran"
    (work / "base" / "martian.py").write_text(MODULE.format(marker=str(marker)))
    auto = {"AutoConfig": "martian.MartianConfig", "AutoModelForCausalLM": "martian.MartianModel"}
    edit_json(work / "base" / "config.json", auto_map=auto, model_type="martian")
    edit_json(work / "base" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["martian.MartianTokenizer", None]})
    return marker


@pytest.mark.parametrize("verb", ["plan", "check", "train", "preview"])
def test_a_model_with_code_of_its_own_is_refused(
    verb: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = with_code(work)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody may be asked"))
    outcome = call((verb, "recipe.yaml"), monkeypatch, capfd)
    assert not marker.exists()
    assert "Traceback" not in outcome.err
    if verb in ("check", "train"):
        assert (
            outcome.code == 2
            and len(outcome.said) == 1
            and "comes with code of its own, which tenfold never runs" in outcome.said[0]
        )


def test_the_code_would_run_if_it_were_trusted(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, by the library's own switch, which copies the code to the user's home before it runs it."""
    from transformers import AutoConfig, dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = with_code(work)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(work / "base", trust_remote_code=False)
    assert not marker.exists()
    AutoConfig.from_pretrained(work / "base", trust_remote_code=True)
    assert marker.exists()


@pytest.mark.parametrize("value", [True, "yes", 1])
@pytest.mark.parametrize("section", [None, "model", "train"])
def test_a_recipe_cannot_ask_for_it(
    section: str | None,
    value: object,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    key = "trust_remote_code"
    changes: dict[str, object] = {key: value}
    if section == "model":
        changes = {"model": {"name": "base", key: value}}
    elif section == "train":
        changes = {"train": {key: value}}
    write_recipe(work, changes)
    outcome = call(("plan", "recipe.yaml"), monkeypatch, capfd)
    assert outcome.code == 2 and len(outcome.said) == 1
    assert "trust_remote_code" in outcome.said[0]
    if section is None:
        assert "tenfold never runs code that comes with a model; remove it" in outcome.said[0]


def test_a_plan_cannot_ask_for_it_either(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = json.loads((work / "plan.json").read_text())
    plan["recipe"]["model"]["trust_remote_code"] = True
    (work / "plan.json").write_text(json.dumps(plan))
    outcome = call(("train", "plan.json"), monkeypatch, capfd)
    assert outcome.code == 2 and "trust_remote_code" in outcome.said[0]
