"""Recipes and tokenizers for the tests of the data package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from tenfold.data import Dataset, Tokenizer, load_dataset
from tenfold.recipe import Recipe, recipe_from_dict

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_recipe(task: str, *train: Path | str, columns: dict[str, str] | None = None, **data: Any) -> Recipe:
    """A recipe that trains on these files; evaluation is off unless asked for."""
    wish = {"train": [str(path) for path in train], "columns": columns or {}, **data}
    if "eval" not in data:
        wish.setdefault("eval_fraction", 0)
    return recipe_from_dict({"model": "tiny", "task": task, "data": wish, "budget": {"usd": 1}})


def byte_tokenizer(
    template: str | None = None, bos: bool = False, suffix: str = "", eos: bool = True, max_length: int | None = None
) -> Tokenizer:
    """One token per byte, plus SPECIAL; adds <s> in front if `bos`, `suffix` behind."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    if bos or suffix:
        added = [token for token in ("<s>" if bos else "", suffix) if token]
        single = f"{'<s> ' if bos else ''}$A{' ' + suffix if suffix else ''}"
        pairs = [(token, vocabulary[token]) for token in added]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    tokens = {"unk_token": "<unk>", "bos_token": "<s>", "pad_token": "<pad>"} | ({"eos_token": "</s>"} if eos else {})
    return Tokenizer("tiny", backend, tokens, template, max_length)


def write(path: Path, content: bytes | str) -> Path:
    """The path, with the content in it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows: object) -> str:
    """Rows as JSON Lines; strings stand as they are."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def load(task: str, path: Path, tokenizer: Tokenizer | None = None, positions: int = 512, **data: Any) -> Dataset:
    """The dataset in one file."""
    return load_dataset(make_recipe(task, path, **data), tokenizer or byte_tokenizer(), positions)
