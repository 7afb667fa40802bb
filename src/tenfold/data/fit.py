"""What happens to examples that are too long, row by row and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tenfold.data.account import Rejection, place
from tenfold.data.tokenize import Draft
from tenfold.errors import InputError

Overlong = Literal["truncate", "drop", "split", "refuse"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """One row that is used: its pieces (one unless it was split) and what was cut off."""

    pieces: tuple[Draft, ...]
    tokens_cut: int
    share: float
    """The hash of the row's content as a number in [0, 1), which decides on which side of a split it falls."""

    @property
    def where(self) -> str:
        """`file:line`."""
        return place(self.pieces[0].source, self.pieces[0].line)

    @property
    def samples(self) -> int:
        """How many samples it makes."""
        return len(self.pieces)

    @property
    def tokens(self) -> int:
        """Tokens of all pieces."""
        return sum(len(piece.input_ids) for piece in self.pieces)

    @property
    def loss_tokens(self) -> int:
        """Targets of all pieces; a labelled row has one."""
        return sum(1 if piece.loss_mask is None else sum(piece.loss_mask) for piece in self.pieces)

    def piece_keys(self) -> Sequence[bytes]:
        """For each piece a digest of its ids."""
        return [hashlib.blake2b(piece.input_ids.tobytes(), digest_size=16).digest() for piece in self.pieces]


def fit(draft: Draft, content: str, max_length: int, overlong: Overlong) -> Fitted | Rejection:
    """The row within `max_length` tokens, or why it is left out; InputError if the policy is to refuse."""
    length = len(draft.input_ids)
    if length <= max_length:
        return _used((draft,), 0, content)
    found = f"{length} tokens, but the limit is {max_length}"
    if overlong == "refuse":
        cure = "raise data.max_length, shorten the row, or set data.overlong to truncate or drop"
        raise InputError(f"{place(draft.source, draft.line)}: {found}; {cure}")
    if overlong == "drop":
        return Rejection(draft.source, draft.line, "overlong", found, length)
    if overlong == "split":
        pieces = tuple(_piece(draft, start, min(start + max_length, length)) for start in range(0, length, max_length))
        whole = tuple(piece for piece in pieces if len(piece.input_ids) > 1)  # one token alone predicts nothing
        return _used(whole, length - sum(len(piece.input_ids) for piece in whole), content)
    return _used((_truncated(draft, max_length),), length - max_length, content)


def _used(pieces: tuple[Draft, ...], cut: int, content: str) -> Fitted | Rejection:
    first = pieces[0]
    if first.loss_mask is not None and not any(any(piece.loss_mask or b"") for piece in pieces):
        tokens = cut + sum(len(piece.input_ids) for piece in pieces)
        detail = f"no token that is learned within the first {tokens - cut} of {tokens}"
        return Rejection(first.source, first.line, "no_loss_tokens", detail, tokens)
    return Fitted(pieces, cut, share_of(content))


def _truncated(draft: Draft, max_length: int) -> Draft:
    kept = max_length - draft.stop_tokens
    tail = len(draft.input_ids) - draft.stop_tokens
    ids = draft.input_ids[:kept] + draft.input_ids[tail:]
    mask = None if draft.loss_mask is None else draft.loss_mask[:max_length]
    return Draft(ids, mask, draft.label, draft.source, draft.line, draft.stop_tokens)


def _piece(draft: Draft, start: int, end: int) -> Draft:
    mask = b"\0" + (draft.loss_mask or b"")[start + 1 : end]
    return Draft(draft.input_ids[start:end], mask, draft.label, draft.source, draft.line)


def share_of(content: str) -> float:
    """A number in [0, 1) that depends on nothing but the text: the same rows are held out in every run."""
    digest = hashlib.blake2b(content.encode("utf-8"), digest_size=7, key=b"tenfold held-out rows").digest()
    return int.from_bytes(digest, "big") / 2**56  # 56 bits: no rounding up to 1.0 in a double's 53 bits of mantissa
