"""A tokenizer with more tokens: its own model extended, so that old text is divided as before and then joined further.

Not transformers' `add_tokens`, which cuts new tokens out of the raw text before the model sees it: those lose the space
before a word, and match inside of other words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

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
    return cast("Kind", found)


def spelled(word: str, tokenizer: Tokenizer) -> str:
    """A word of plain text as the tokenizer's model writes it behind a space: cell is Ġcell where bytes are tokens."""
    kind = kind_of(tokenizer)
    backend: Any = tokenizer.backend
    text = backend.normalizer.normalize_str(f" {word}") if backend.normalizer is not None else f" {word}"
    words = [text] if backend.pre_tokenizer is None else [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    if len(words) != 1 or " " in (found := words[0].strip() if kind == "WordPiece" else words[0]):
        raise InputError(
            f"cuts.warm_start.tokens: {shown(word)} is {len(words)} words to this tokenizer; name words one by one"
        )
    return found


def extend(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer with `tokens`, in the model's own spelling, numbered on from its last id.

    Each token of a BPE must be two tokens to what comes before it. Raises InputError if one is there already, is part
    of a special token or holds one, or cannot be reached.
    """
    kind = kind_of(tokenizer)
    file = json.loads(tokenizer.backend.to_str())
    extend_file(file, tokens, kind, tokenizer.name)
    return replace(tokenizer, backend=tokenizers.Tokenizer.from_str(json.dumps(file)))


def extend_file(file: dict[str, Any], tokens: Sequence[str], kind: Kind, name: str) -> None:
    """Add `tokens` to what a tokenizer.json holds, in place. Raises InputError as `extend` does."""
    model, added = file["model"], file["added_tokens"]
    vocabulary: dict[str, int] = model["vocab"]
    specials = [entry["content"] for entry in added if entry["special"]]
    for entry in added:  # the library numbers what the model does not know behind the model's last token
        vocabulary.setdefault(entry["content"], entry["id"])
    _check(tokens, vocabulary, specials, name)
    merger = _Merger(model) if kind == "BPE" else None
    first = max(vocabulary.values()) + 1
    for number, token in enumerate(tokens, first):
        if merger is not None:
            merger.learn(token)
        vocabulary[token] = number


def steps_to(token: str, tokenizer: Tokenizer) -> list[str]:
    """The tokens to add so that a BPE reaches `token`, the last of them: one for each join of its present pieces."""
    if kind_of(tokenizer) == "WordPiece":
        return [token]
    backend: Any = tokenizer.backend
    pieces = [piece.value for piece in backend.model.tokenize(token)]
    joined = [pieces[0]]
    for piece in pieces[1:]:
        joined.append(joined[-1] + piece)
    return joined[1:]


def _check(tokens: Sequence[str], vocabulary: dict[str, int], specials: Sequence[str], name: str) -> None:
    known = set(vocabulary)
    for token in tokens:
        if clash := next((special for special in specials if special in token or token == special), None):
            raise InputError(
                f"cuts.warm_start.tokens: {shown(token)} would take the place of the special token {shown(clash)};"
                " leave it out"
            )
        if token in known:
            raise InputError(
                f"cuts.warm_start.tokens: the tokenizer of {plain(name)} has {shown(token)} already; leave it out"
            )
        known.add(token)


class _Merger:
    """Adds merges to the model of a BPE."""

    def __init__(self, model: dict[str, Any]) -> None:
        merges: list[Any] = model["merges"]
        self.merges = merges
        self.as_text = bool(merges) and isinstance(merges[0], str)  # how files were written before tokenizers 0.20
        self.vocabulary: dict[str, int] = model["vocab"]
        pairs = (tuple(merge.split(" ")) if self.as_text else tuple(merge) for merge in merges)
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def learn(self, token: str) -> None:
        """Rank a merge that makes `token` behind all others."""
        pieces = self._divide(token)
        if len(pieces) != 2:
            raise InputError(
                f"cuts.warm_start.tokens: {shown(token)} is {len(pieces)} tokens to this tokenizer; a new one joins two"
            )
        self.ranks[pieces[0], pieces[1]] = len(self.ranks)
        self.merges.append(" ".join(pieces) if self.as_text else list(pieces))

    def _divide(self, token: str) -> list[str]:
        """By the merges so far, the lowest rank first (arXiv 1508.07909)."""
        pieces = list(token)
        while len(pieces) > 1:
            ranked = [(self.ranks.get((a, b), -1), i) for i, (a, b) in enumerate(zip(pieces, pieces[1:], strict=False))]
            known = [(rank, place) for rank, place in ranked if rank >= 0]
            if not known:
                break
            _, place = min(known)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces

