"""Which tokens to add for a text, and how many: as long as a new row saves more than it costs.

A position that a token saves would have gone through every block: block_parameters products, forward and backward, and
forward alone in use. A row that is added is multiplied with every position that is predicted: hidden_size products, as
often. So a row pays where it saves at least hidden_size / block_parameters of all positions, in training and in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tenfold.data.tokenizer import Tokenizer
from tenfold.shape import Shape
from tenfold.vocabulary.extend import extend, kind_of
from tenfold.vocabulary.merges import next_tokens
from tenfold.vocabulary.pieces import missing_words
from tenfold.vocabulary.words import MOST_CHARACTERS, Words, count_words, divided, in_stretches, together

LEAST_OCCURRENCES = 8
"""Of a token in the text, whatever it saves: a row that is seen more rarely learns next to nothing."""

ROWS_MULTIPLE = 64
"""Tables are filled up to it where that gives up a tenth of the tokens at most: products with such tables are the fast
ones on GPUs (NVIDIA's deep learning performance guide, matrix multiplication)."""

STRETCHES = 5
"""A fifth of the texts at a time is left out to foretell what the tokens save on texts that they were not chosen by."""


@dataclass(frozen=True)
class Choice:
    """Tokens to add, and what they are foretold to do to the texts they were chosen by."""

    tokens: tuple[str, ...]
    saved: tuple[int, ...]
    """Token positions that each saves when those before it are there."""
    tokens_before: int
    """Positions of the texts with the old vocabulary; of at most MOST_CHARACTERS of them."""
    least: int
    """Fewer saved positions than this do not pay for a row."""

    @property
    def tokens_after(self) -> int:
        """Positions with all of the new tokens."""
        return self.tokens_before - sum(self.saved)


def break_even(shape: Shape, positions: int) -> int:
    """How many of `positions` a row has to save to pay for itself on this model, LEAST_OCCURRENCES at least."""
    share = shape.hidden_size / shape.block_parameters
    return max(LEAST_OCCURRENCES, round(share * positions))


def choose_tokens(texts: Sequence[str], tokenizer: Tokenizer, shape: Shape, count: int | None = None) -> Choice:
    """The tokens worth adding for `texts`, most useful first; `count` of them where given, whatever they save.

    Without `count` all that pay, less what ROWS_MULTIPLE wants.
    """
    words = count_words(texts, tokenizer)
    least = 1 if count is not None else break_even(shape, words.tokens)
    ranked = list(_first(_ranked(words, tokenizer, least), count))
    if count is None:
        ranked = ranked[: _whole_table(len(ranked), tokenizer.next_id)]
    return Choice(tuple(t for t, _ in ranked), tuple(s for _, s in ranked), words.tokens, least)


def share_on_new_text(texts: Sequence[str], tokenizer: Tokenizer, count: int) -> float | None:
    """Positions per old position on texts that did not help to choose `count` tokens; None of too few texts.

    Stretches are left out, each in turn: neighbouring rows are often of one document and share its rare words, so that
    single rows between them would be foretold to save what no new document does.
    """
    if len(texts) < STRETCHES:
        return None
    most = MOST_CHARACTERS // STRETCHES
    parts = [count_words(part, tokenizer, most) for part in in_stretches(texts, STRETCHES)]
    shorter = 0
    for left_out in parts:
        words = together(part for part in parts if part is not left_out)
        tokens = [token for token, _ in _first(_ranked(words, tokenizer, 1), count)]
        shorter += divided(left_out.counts, extend(tokenizer, tokens)).tokens
    return shorter / max(1, sum(part.tokens for part in parts))


def _ranked(words: Words, tokenizer: Tokenizer, least: int) -> Iterator[tuple[str, int]]:
    if kind_of(tokenizer) == "WordPiece":
        return missing_words(words, least)
    return next_tokens(words, tokenizer.backend.get_vocab(with_added_tokens=True), least)


def _first(ranked: Iterator[tuple[str, int]], count: int | None) -> Iterator[tuple[str, int]]:
    for number, item in enumerate(ranked):
        if count is not None and number >= count:
            return
        yield item


def _whole_table(found: int, rows: int) -> int:
    """How many of `found` tokens to add to `rows`."""
    fitting = found - (rows + found) % ROWS_MULTIPLE
    return fitting if 10 * fitting >= 9 * found else found
