"""What two vocabularies have in common: which tokens are the same, and what the others are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.data.account import plain
from tenfold.data.tokenizer import Tokenizer
from tenfold.errors import InputError

LEAST_SHARED = 100
"""Tokens that two vocabularies must share for one to be expressed by the other."""

ROLES = ("eos_token", "bos_token", "cls_token", "sep_token", "mask_token", "unk_token", "pad_token")
"""Of special tokens; one that has several takes the old row of the first."""

SPELLINGS = {
    "ByteLevel": "bytes written as letters (Ġcell)",
    "WordPiece": "word pieces (cell, ##s)",
    "Metaspace": "SentencePiece (▁cell)",
    "ByteFallback": "SentencePiece (▁cell)",
    "": "plain words",
}
"""How decoders betray the way tokens are written."""


@dataclass(frozen=True)
class Transfer:
    """Where each row of a new table comes from."""

    rows: int
    """Of the new table that tokens name; a table may have more."""
    kept: tuple[tuple[int, int], ...]
    """(new id, old id) of the same token."""
    new_ids: tuple[int, ...]
    """Tokens that the old vocabulary lacks."""
    parts: tuple[tuple[int, ...], ...]
    """The old ids that each of them divides into; empty where it divides into nothing."""
    tokens: tuple[str, ...]
    """Their spelling."""


def transfer(old: Tokenizer, new: Tokenizer) -> Transfer:
    """From the old vocabulary to the new one; special tokens are the same that are spelled alike, or else do the same.

    Raises InputError if their tokens are written in different ways, or the new one lacks a special token.
    """
    check_spelling(old, new, "cuts.warm_start.tokenizer")
    same = same_roles(old, new)
    before, after = (one.backend.get_vocab(with_added_tokens=True) for one in (old, new))
    ordered = sorted(after.items(), key=lambda item: item[1])
    found = [(token, number, before.get(token, before.get(same.get(token, "")))) for token, number in ordered]
    fresh = [(token, number) for token, number, known in found if known is None]
    return Transfer(
        rows=ordered[-1][1] + 1,
        kept=tuple((number, known) for _, number, known in found if known is not None),
        new_ids=tuple(number for _, number in fresh),
        parts=tuple(parts_of(token, old) for token, _ in fresh),
        tokens=tuple(token for token, _ in fresh),
    )


def same_roles(old: Tokenizer, new: Tokenizer) -> dict[str, str]:
    """Special tokens of the new vocabulary, each with the old one that does the same.

    Raises InputError if one of the old ones has no counterpart.
    """
    if lost := [name for name, token in old.special_tokens.items() if token and not new.special_tokens.get(name)]:
        raise InputError(
            f"cuts.warm_start.tokenizer: {plain(new.name)} has no {lost[0]}, which the model uses; name it in its"
            " tokenizer_config.json"
        )
    there = [role for role in ROLES if old.special_tokens.get(role)]
    return {new.special_tokens[role]: old.special_tokens[role] for role in reversed(there)}


def parts_of(token: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of the tokens that the model of `tokenizer` divides a token of another vocabulary into."""
    backend: Any = tokenizer.backend
    unknown = tokenizer.special_tokens.get("unk_token")
    if token.startswith("##"):  # WordPiece: only behind the start of a word
        return _continuing(token.removeprefix("##"), backend.get_vocab(with_added_tokens=False))
    pieces = backend.model.tokenize(token)
    return tuple(piece.id for piece in pieces if piece.value != unknown)


def _continuing(rest: str, known: Mapping[str, int]) -> tuple[int, ...]:
    """The longest pieces first, as WordPiece takes them; empty where one is unknown."""
    found: list[int] = []
    while rest:
        length = next((n for n in range(len(rest), 0, -1) if f"##{rest[:n]}" in known), 0)
        if not length:
            return ()
        found.append(known[f"##{rest[:length]}"])
        rest = rest[length:]
    return tuple(found)


def shared_ids(donor: Tokenizer, receiver: Tokenizer) -> tuple[tuple[int, int], ...]:
    """(donor id, receiver id) of every token that both know, special tokens left out.

    Raises InputError if they write tokens in different ways, or share fewer than LEAST_SHARED.
    """
    check_spelling(donor, receiver, "cuts.warm_start.donor")
    theirs, ours = (one.backend.get_vocab(with_added_tokens=False) for one in (donor, receiver))
    special = donor.special_ids
    pairs = tuple((number, ours[t]) for t, number in sorted(theirs.items()) if t in ours and number not in special)
    if len(pairs) < LEAST_SHARED:
        raise InputError(
            f"cuts.warm_start.donor: {plain(donor.name)} shares {len(pairs)} tokens with {plain(receiver.name)}, and"
            f" {LEAST_SHARED} are needed; name a donor with a vocabulary of the same language"
        )
    return pairs


def check_spelling(one: Tokenizer, other: Tokenizer, key: str) -> None:
    """Raises InputError unless both write the same token the same way."""
    found = [spelling(tokenizer) for tokenizer in (one, other)]
    if found[0] != found[1]:
        raise InputError(
            f"{key}: {plain(one.name)} writes tokens as {found[0]} and {plain(other.name)} as {found[1]}, so that none"
            " can be recognised; name one that writes them the same way"
        )


def spelling(tokenizer: Tokenizer) -> str:
    """How the tokenizer writes what stands behind a space, and what continues a word."""
    backend: Any = tokenizer.backend
    parts = f"{backend.decoder!r} {backend.pre_tokenizer!r} {type(backend.model).__name__}("
    return next(text for kind, text in SPELLINGS.items() if not kind or f"{kind}(" in parts)
