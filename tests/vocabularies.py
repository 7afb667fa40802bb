"""Small tokenizers that can grow, and texts with words that they lack."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jobs import make_recipe
from tenfold.data.tokenizer import Tokenizer
from tiny import tiny_folder

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
NAMED = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
PLAIN = ["the", "the", "the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "house", "in", "rain", "red", "hat"]
DOMAIN = ["myocardium", "myocardial", "infarction", "tachycardia", "angiogram", "stenosis", "thrombosis"]


def plain_texts(count: int = 60, seed: int = 0) -> list[str]:
    """Texts of common words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(PLAIN, k=12)) for _ in range(count)]


def domain_texts(count: int = 60, seed: int = 0) -> list[str]:
    """Texts in which every third word is one of DOMAIN."""
    draw = random.Random(seed)
    words = [[*draw.choices(PLAIN, k=2), draw.choice(DOMAIN)] for _ in range(count * 6)]
    return [
        " ".join(word for triple in words[start : start + 6] for word in triple) for start in range(0, count * 6, 6)
    ]


def bpe(
    texts: Sequence[str], vocabulary: int = 320, specials_apart: bool = False, specials: Sequence[str] = SPECIAL
) -> Tokenizer:
    """A byte-level BPE trained on `texts`; with `specials_apart` its model does not know the special ones (Qwen's)."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[] if specials_apart else list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(list(specials))
    return Tokenizer("tiny-bpe", backend, NAMED)


def word_piece(texts: Sequence[str], vocabulary: int = 120) -> Tokenizer:
    """A lower-casing WordPiece trained on `texts`, with every letter as a piece."""
    backend = Backend(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    letters = list("abcdefghijklmnopqrstuvwxyz")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=letters,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    backend.train_from_iterator([*texts, *("x" + letter for letter in letters)], trainer)
    return Tokenizer("tiny-wordpiece", backend, NAMED)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, kind: str = "PreTrainedTokenizerFast") -> Path:
    """The files that transformers reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": kind, **NAMED, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def growing_folder(folder: Path, family: str = "llama", tokenizer: Tokenizer | None = None, seed: int = 0) -> Path:
    """A tiny model with a tokenizer that can grow: a BPE, or for BERT a WordPiece."""
    tiny_folder(folder, family, seed)
    chosen = tokenizer or (word_piece(plain_texts()) if family == "bert" else bpe(plain_texts(), 290))
    return save_tokenizer(chosen, folder)


def write_texts(path: Path, texts: Sequence[str], task: str = "text") -> Path:
    """Rows of a data file."""
    rows = [{"text": text} if task == "text" else {"text": text, "label": f"label{len(text) % 3}"} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def warm_recipe(folder: Path, family: str = "llama", task: str = "text", **sections: Any) -> dict[str, Any]:
    """Domain texts for a model whose tokenizer knows plain ones."""
    folder.mkdir(parents=True, exist_ok=True)
    growing_folder(folder / f"base-{family}", family)
    recipe = make_recipe(
        folder,
        task,
        family,
        data={
            "train": str(write_texts(folder / "domain.jsonl", domain_texts(40), task)),
            "eval": str(write_texts(folder / "domain-eval.jsonl", domain_texts(8, 1), task)),
        },
        train={"epochs": None, "max_steps": 4, "batch_size": 8},
    )
    recipe["cuts"] = {
        "lora": {"rank": 4},
        "warm_start": {"tokens": 5 if family == "bert" else 12, "old_text": str(old_text(folder))},
    }
    for name, values in sections.items():
        recipe[name] = {**recipe.get(name, {}), **values}
    return recipe


def old_text(folder: Path) -> Path:
    return write_texts(folder / "old.jsonl", plain_texts(20, 7))
