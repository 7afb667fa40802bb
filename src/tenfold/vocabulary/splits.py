"""Which two tokens each token of a vocabulary is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tenfold.data.account import plain
from tenfold.data.tokenizer import Tokenizer
from tenfold.errors import InputError
from tenfold.vocabulary.extend import KINDS, kind_of

Split = tuple[int, int, int]
"""Ids of the left part, the right part and the whole."""


def check_splits(tokenizer: Tokenizer) -> None:
    """Raises InputError on a tokenizer whose tokens are not made of two others."""
    backend: Any = tokenizer.backend
    if (kind := type(backend.model).__name__) not in KINDS:
        raise InputError(
            f"cuts.warm_start.initialise: compose learns how tokens follow from two others, and the tokenizer of"
            f" {plain(tokenizer.name)} is a {kind}, which has none that do; write distil"
        )


def splits_of(tokenizer: Tokenizer) -> tuple[Split, ...]:
    """Of every token that has two parts in the same vocabulary, parts before wholes: a BPE by its merges, a WordPiece
    by its longest beginning that leaves a known rest."""
    model: dict[str, Any] = json.loads(tokenizer.backend.to_str())["model"]
    vocabulary: dict[str, int] = tokenizer.backend.get_vocab(with_added_tokens=True)
    if kind_of(tokenizer) == "BPE":
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        found = ((vocabulary[a], vocabulary[b], vocabulary[a + b]) for a, b in pairs)
        return tuple({split[2]: split for split in found}.values())
    return tuple(sorted(_word_piece_splits(vocabulary), key=lambda split: split[2]))


def _word_piece_splits(vocabulary: dict[str, int]) -> Iterator[Split]:
    for token, number in vocabulary.items():
        mark = "##" if token.startswith("##") else ""
        letters = token.removeprefix(mark)
        for place in range(len(letters) - 1, 0, -1):
            left, right = f"{mark}{letters[:place]}", f"##{letters[place:]}"
            if left in vocabulary and right in vocabulary:
                yield vocabulary[left], vocabulary[right], number
                break
