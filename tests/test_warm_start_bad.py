"""What a warm start cannot do is said in one line, with exit code 2, and nothing is left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import call, tree
from tiny import FAMILIES, tiny_folder
from vocabularies import bpe, domain_texts, growing_folder, plain_texts, save_tokenizer, warm_recipe, write_texts

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "donor of another architecture": (
        {"take_layers": [0], "donor": "bert"},
        "cuts.warm_start.donor: .*bert has model_type bert, and the model llama; blocks can only come",
    ),
    "donor of another width": (
        {"take_layers": [0], "donor": "wide"},
        "cuts.warm_start.donor: .*wide has hidden_size 48, and the model 32; blocks can only come",
    ),
    "tokenizers that cannot be aligned": (
        {"tokenizer": "bert"},
        "cuts.warm_start.tokenizer: .* so that none can be recognised",
    ),
    "donor with other tokens": (
        {"tokens": 12, "initialise": "transplant", "donor": "bert"},
        "cuts.warm_start.donor: .* so that none can be recognised",
    ),
    "a token that exists": ({"tokens": "the.txt"}, "the.txt:1: .* has 'Ġthe' already; leave it out"),
    "a special token": ({"tokens": "eos.txt"}, r"eos.txt:1: .*is \d words to this tokenizer|special token"),
    "a special token in a list": ({"tokens": "eos.json"}, "take the place of the special token '</s>'"),
    "text too small": ({"tokens": "auto"}, r"few.jsonl: \d+ positions of text are too few to choose from"),
    "more tokens than there are": ({"tokens": 999_999}, "found 999,999, but few.jsonl .* gives only"),
    "an empty file": ({"tokens": "none.txt"}, "none.txt holds no word; write one a line, or auto"),
    "no such file": ({"tokens": "nowhere.txt"}, "nowhere.txt cannot be read"),
    "tokens and a tokenizer": ({"tokens": 5, "tokenizer": "bert"}, "keep one of the two"),
    "no donor": ({"tokens": 5, "initialise": "donor"}, "name one in cuts.warm_start.donor"),
    "no donor of layers": ({"take_layers": [0]}, "name one in cuts.warm_start.donor"),
    "a block that is not there": ({"keep_layers": [7]}, "found 7, but the model has blocks 0 to 2"),
    "too many neurons": ({"intermediate_size": 4096}, "found 4096, but the model has 64"),
    "a misspelt key": ({"tokns": 5}, "did you mean cuts.warm_start.tokens"),
    "an unknown method": ({"initialise": "magic"}, r"found 'magic' \(text\), expected random, mean, subtokens"),
    "too many channels": ({"hidden_size": 48}, "hidden_size: found 48, but the model has 32; write fewer"),
    "too many heads": ({"num_attention_heads": 8}, "num_attention_heads: found 8, but the model has 4; write fewer"),
    "half a group of heads": (
        {"num_attention_heads": 3},
        "share keys and values in groups of 2; write",
    ),
    "groups of heads by number": ({"num_key_value_heads": 1}, "go together; write cuts.warm_start.num_attention_heads"),
    "a vocabulary without special tokens": (
        {"tokenizer": "bare"},
        "bare has no .*_token, which the model uses; name it",
    ),
    "nothing to do": ({"keep_layers": [0, 1, 2]}, "cuts.warm_start: changes nothing"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_left(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings, message = CASES[case]
    recipe = warm_recipe(tmp_path)
    growing_folder(tmp_path / "bert", "bert")
    save_tokenizer(bpe(domain_texts()), tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer_config.json").write_text("{}")
    wide = {**FAMILIES["llama"].to_dict(), "hidden_size": 48, "head_dim": 12}
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "config.json").write_text(json.dumps(wide))
    write_texts(tmp_path / "few.jsonl", plain_texts(3))
    for name, text in (("the.txt", "the\n"), ("eos.txt", "</s>\n"), ("eos.json", '["</s>"]'), ("none.txt", "\n\n")):
        (tmp_path / name).write_text(text)
    recipe["cuts"]["warm_start"] = settings
    if "few" in message:
        recipe["data"]["train"] = str(tmp_path / "few.jsonl")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    outcome = call(["plan", "recipe.yaml"], monkeypatch, capfd)
    assert outcome.code == 2
    assert len(outcome.said) == 1, outcome.err
    assert re.search(message, outcome.said[0]), outcome.said[0]
    assert "Traceback" not in outcome.err
    assert tree(tmp_path) == before


def test_a_tokenizer_of_words_cannot_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = warm_recipe(tmp_path)
    recipe["model"] = str(tiny_folder(tmp_path / "words"))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    outcome = call(["vocabulary", str(tmp_path / "recipe.yaml")], monkeypatch, capfd)
    assert outcome.code == 2
    assert "is a WordLevel, which cannot take more tokens" in outcome.said[0]


def test_tokens_without_parts_do_not_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a whole vocabulary that is swapped, before anything is paid; the control: other rows are planned."""
    recipe = warm_recipe(tmp_path)
    recipe["model"] = str(tiny_folder(tmp_path / "words"))
    (tmp_path / "other").mkdir()
    file = json.loads((tmp_path / "words" / "tokenizer.json").read_text())
    file["model"]["vocab"]["myocardium"] = 1 + max(file["model"]["vocab"].values())
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(file))
    config = (tmp_path / "words" / "tokenizer_config.json").read_text()
    (tmp_path / "other" / "tokenizer_config.json").write_text(config)
    for method, code in (("compose", 2), ("subtokens", 0)):
        recipe["cuts"]["warm_start"] = {"tokenizer": str(tmp_path / "other"), "initialise": method}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        outcome = call(["plan", str(tmp_path / "recipe.yaml")], monkeypatch, capfd)
        assert outcome.code == code, outcome.err
        if code:
            assert "compose learns how tokens follow from two others" in outcome.said[0]
            assert "is a WordLevel" in outcome.said[0]


def test_a_unigram_tokenizer_cannot_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scores of its tokens belong together; the control: the same recipe with a BPE is planned."""
    recipe = warm_recipe(tmp_path)
    recipe["cuts"]["warm_start"] = {"tokens": 5}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert call(["plan", str(tmp_path / "recipe.yaml")], monkeypatch, capfd).code == 0
    path = Path(recipe["model"]) / "tokenizer.json"
    file = json.loads(path.read_text())
    tokens = sorted(file["model"]["vocab"], key=file["model"]["vocab"].__getitem__)
    file["model"] = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [[token, -1.0] for token in tokens],
        "byte_fallback": False,
    }
    path.write_text(json.dumps(file))
    before = tree(tmp_path)
    outcome = call(["plan", str(tmp_path / "recipe.yaml")], monkeypatch, capfd)
    assert outcome.code == 2
    assert len(outcome.said) == 1
    assert "is a Unigram, which cannot take more tokens (BPE and WordPiece can)" in outcome.said[0]
    assert tree(tmp_path) == before
