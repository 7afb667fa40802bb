"""A tokenizer with more tokens: its own model extended, so that old text is divided as before and then joined further.

Not transformers' `add_tokens`, which cuts new tokens out of the raw text before the model sees it: those lose the space
before a word, and match inside of other words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import tokenizers

from tenfold.data.account import plain, shown
from tenfold.data.tokenizer import Tokenizer
from tenfold.errors import InputError

Kind = Literal["BPE", "WordPiece"]

KINDS: tuple[Kind, ...] = ("BPE", "WordPiece")
"""Models that can be extended. Unigram's scores belong to all of its tokens together, WordLevel has no parts."""


def kind_of(tokenizer: Tokenizer) -> Kind:
    """How the tokenizer divides words. Raises InputError if tokens cannot be added to it."""
    backend: Any = tokenizer.backend
    found = type(backend.model).__name__
    if found not in KINDS:
        raise InputError(
            f"cuts.warm_start.tokens: the tokenizer of {plain(tokenizer.name)} is a {found}, which cannot take more"
            f" tokens ({' and '.join(KINDS)} can); name another tokenizer in cuts.warm_start.tokenizer"
        )
    return found


def extend(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer with `tokens`, in the model's own spelling, numbered on from its last id.

    Each token of a BPE must be two tokens to what comes before it. Raises InputError if one is there already, is or
    holds a special token, or cannot be reached.
    """
    kind_of(tokenizer)
    extension = Extension(json.loads(tokenizer.backend.to_str()), tokenizer.name)
    for token in tokens:
        extension.add(token)
    return replace(tokenizer, backend=tokenizers.Tokenizer.from_str(json.dumps(extension.file)))


class Extension:
    """What a tokenizer.json holds, with tokens added to it one by one, in place."""

    def __init__(self, file: dict[str, Any], name: str) -> None:
        self.file, self.name = file, name
        self.vocabulary: dict[str, int] = file["model"]["vocab"]
        self.specials = [entry["content"] for entry in file["added_tokens"] if entry["special"]]
        for entry in file["added_tokens"]:  # the library numbers what the model lacks behind the model's last token
            self.vocabulary.setdefault(entry["content"], entry["id"])
        self.next_id = max(self.vocabulary.values()) + 1
        self.is_bpe = file["model"]["type"] == "BPE"
        self.merges: list[Any] = file["model"]["merges"] if self.is_bpe else []
        self.as_text = bool(self.merges) and isinstance(self.merges[0], str)  # so written before tokenizers 0.20
        pairs = (tuple(merge.split(" ")) if self.as_text else tuple(merge) for merge in self.merges)
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def add(self, token: str) -> None:
        """One more token. Raises InputError as `extend` does."""
        if clash := next((special for special in self.specials if special in token), None):
            raise InputError(
                f"cuts.warm_start.tokens: {shown(token)} would take the place of the special token {shown(clash)};"
                " leave it out"
            )
        if token in self.vocabulary:
            raise InputError(
                f"cuts.warm_start.tokens: the tokenizer of {plain(self.name)} has {shown(token)} already; leave it out"
            )
        if self.is_bpe:
            self._learn(token)
        self.vocabulary[token] = self.next_id
        self.next_id += 1

    def steps_to(self, token: str) -> list[str]:
        """The tokens to add so that `token` is reached, itself the last: one for each join of its present pieces."""
        if not self.is_bpe or token in self.vocabulary:
            return [token]
        return [step for step in accumulate(self._divide(token)) if step not in self.vocabulary]

    def _learn(self, token: str) -> None:
        """Rank a merge that makes `token` behind all others."""
        pieces = self._divide(token)
        if len(pieces) != 2:
            raise InputError(
                f"cuts.warm_start.tokens: {shown(token)} is {len(pieces)} tokens to this tokenizer; a new one joins two"
            )
        self.ranks[pieces[0], pieces[1]] = len(self.ranks)
        self.merges.append(" ".join(pieces) if self.as_text else pieces)

    def _divide(self, token: str) -> list[str]:
        """By the merges so far, the lowest rank first (arXiv 1508.07909)."""
        pieces = list(token)
        while len(pieces) > 1:
            known = [(self.ranks[pair], place) for place, pair in enumerate(pairwise(pieces)) if pair in self.ranks]
            if not known:
                break
            _, place = min(known)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces


def spelled(word: str, tokenizer: Tokenizer) -> str:
    """A word of plain text as the tokenizer's model writes it behind a space: cell is Ġcell where bytes are tokens.

    Raises InputError if it is more than one word to the tokenizer.
    """
    kind = kind_of(tokenizer)
    backend: Any = tokenizer.backend
    text = f" {word}" if backend.normalizer is None else backend.normalizer.normalize_str(f" {word}")
    words = [text] if backend.pre_tokenizer is None else [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    found = words[0].strip() if kind == "WordPiece" and words else "".join(words)
    found = re.sub("^▁+", "▁", found)  # a normalizer may put one before the one of the space
    if len(words) != 1 or " " in found:
        raise InputError(
            f"cuts.warm_start.tokens: {shown(word)} is {len(words)} words to this tokenizer; name words one by one"
        )
    return found
