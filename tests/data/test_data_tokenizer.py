"""Tokenizers read from files are those of transformers, and never pad or cut."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_recipes import CHATML, byte_tokenizer, write
from tenfold.data import Tokenizer, read_tokenizer
from tenfold.errors import InputError

TEXTS = [
    "Hello there, how are you?", "  spaces   and\ttabs\n\n", "Ünïcödé 漢字 🙂 👩‍👩‍👧",
    "[CLS] [SEP] <|im_end|> <|endoftext|>",
    "x" * 3000, "a\u2028b\u0085c", "1234567890 3.14", "DON'T",
]  # fmt: skip


def assert_same(ours: Tokenizer, theirs: Tokenizer) -> None:
    for special in (True, False):
        assert ours.encode_batch(TEXTS, special) == theirs.encode_batch(TEXTS, special)
        assert [ours.encode(text, special) for text in TEXTS] == ours.encode_batch(TEXTS, special)
    for name in ("vocab_size", "bos_id", "eos_id", "pad_id", "special_ids", "stop_ids", "prefix_ids", "suffix_ids"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert dict(ours.special_tokens) == dict(theirs.special_tokens)
    assert (ours.chat_template, ours.max_length) == (theirs.chat_template, theirs.max_length)


def test_classics_as_transformers_reads_it(shared_model: Path) -> None:
    pytest.importorskip("transformers")
    ours = read_tokenizer(shared_model)
    assert_same(ours, Tokenizer.from_transformers(shared_model))
    assert (ours.eos_id, ours.pad_id, ours.vocab_size, ours.max_length) == (0, 1, 8192, 2048)
    assert ours.chat_template is not None and {0, 3} <= ours.stop_ids, "its bos is its eos too, and does end texts"
    assert 1 not in ours.stop_ids


def test_minilm_as_transformers_reads_it(minilm: Path) -> None:
    pytest.importorskip("transformers")
    ours = read_tokenizer(minilm)
    assert_same(ours, Tokenizer.from_transformers(minilm))
    assert (ours.eos_id, ours.pad_id, ours.prefix_ids, ours.suffix_ids) == (None, 0, (101,), (102,))
    assert len(ours.encode("word " * 600, True)) == 602, "its file would cut at 128"
    assert len(ours.encode("word", True)) == 3, "its file would pad to 128"


def saved(
    folder: Path, tokenizer: Tokenizer, config: dict[str, object], model: dict[str, object] | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    base = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    for name, value in {"tokenizer_config": base, "config": model or {}}.items():
        write(folder / f"{name}.json", json.dumps(value))
    return folder


NAMED = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
CONFIGS: dict[str, dict[str, object]] = {
    "named tokens": NAMED,
    "tokens as objects": {**NAMED, "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True}},
    "add bos": {**NAMED, "add_bos_token": True},
    "add bos and eos": {**NAMED, "add_bos_token": True, "add_eos_token": True},
    "add neither": {**NAMED, "add_bos_token": False},
    "pad token is new": {**NAMED, "pad_token": "<new>"},
    "extra special tokens": {**NAMED, "additional_special_tokens": ["<tool>"]},
    "template inside": {**NAMED, "chat_template": CHATML},
    "no sane length": {**NAMED, "model_max_length": 10**30},
    "a length": {**NAMED, "model_max_length": 512},
}


@pytest.mark.parametrize("case", CONFIGS, ids=str)
def test_configurations_as_transformers_reads_them(case: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = saved(tmp_path / "m", byte_tokenizer(bos="neither" not in case), CONFIGS[case])
    assert_same(read_tokenizer(folder), Tokenizer.from_transformers(folder))


def test_template_files_win(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", byte_tokenizer(), {**NAMED, "chat_template": "old"})
    assert read_tokenizer(folder).chat_template == "old"
    write(folder / "chat_template.jinja", CHATML)
    assert read_tokenizer(folder).chat_template == CHATML
    several = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert read_tokenizer(saved(tmp_path / "n", byte_tokenizer(), {"chat_template": several})).chat_template == "d"


def test_eos_from_the_model_configuration(tmp_path: Path) -> None:
    bare = saved(tmp_path / "m", byte_tokenizer(), {}, model={"eos_token_id": [2, 5]})
    assert read_tokenizer(bare).eos_id == 2
    assert read_tokenizer(saved(tmp_path / "n", byte_tokenizer(), {})).eos_id is None


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no tokenizer\.json"):
        read_tokenizer(tmp_path / "empty")
    folder = saved(tmp_path / "m", byte_tokenizer(), {})
    write(folder / "tokenizer_config.json", "{")
    with pytest.raises(InputError, match=r"tokenizer_config\.json is not JSON"):
        read_tokenizer(folder)
    write(folder / "tokenizer_config.json", "{}")
    write(folder / "tokenizer.json", "{}")
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer") as caught:
        read_tokenizer(folder)
    assert "\n" not in str(caught.value)


def test_a_name_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="'no-one/no-model' is neither a folder nor in the cache") as error:
        read_tokenizer("no-one/no-model")
    assert "\n" not in str(error.value)


def test_render_chat(shared_model: Path) -> None:
    tokenizer = read_tokenizer(shared_model)
    rendered = tokenizer.render_chat([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert rendered.text.endswith("<|im_start|>assistant\n") and rendered.spans == ()
    answer = tokenizer.render_chat([{"role": "assistant", "content": "Yes"}])
    assert [answer.text[start:end] for start, end in answer.spans] == ["Yes<|im_end|>"]
    with pytest.raises(InputError, match="no chat template"):
        byte_tokenizer().render_chat([{"role": "user", "content": "Hi"}])


def test_heavy_libraries_stay_out() -> None:
    """Reading data must not import torch: planning would wait for it."""
    heavy = "torch", "transformers", "datasets", "pyarrow", "huggingface_hub"
    code = f"import sys, tenfold.data; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
