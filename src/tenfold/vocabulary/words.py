"""The words of a text as a tokenizer's model gets them, how often each occurs, and the pieces that it makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.data.tokenizer import Tokenizer

MOST_CHARACTERS = 20_000_000
"""Of the text that is counted: what a token saves in twenty million characters, it saves in more of the same."""


@dataclass(frozen=True)
class Words:
    """Counts and pieces by word, in the model's own spelling (byte-level: a leading space is written as Ġ)."""

    counts: Mapping[str, int]
    pieces: Mapping[str, tuple[str, ...]]

    @property
    def tokens(self) -> int:
        """Of the whole text, special tokens left out."""
        return sum(count * len(self.pieces[word]) for word, count in self.counts.items())


def count_words(texts: Iterable[str], tokenizer: Tokenizer, most_characters: int = MOST_CHARACTERS) -> Words:
    """The words of `texts`, up to so many characters of them."""
    counts: Counter[str] = Counter()
    seen = 0
    for text in texts:
        counts.update(split_words(text, tokenizer))
        seen += len(text)
        if seen >= most_characters:
            break
    return divided(counts, tokenizer)


def divided(counts: Mapping[str, int], tokenizer: Tokenizer) -> Words:
    """Words that are counted already, in the pieces of `tokenizer`."""
    backend: Any = tokenizer.backend
    pieces = {word: tuple(token.value for token in backend.model.tokenize(word)) for word in counts}
    return Words(counts, pieces)


def together(parts: Iterable[Words]) -> Words:
    """The words of several texts that one tokenizer has divided."""
    counts: Counter[str] = Counter()
    pieces: dict[str, tuple[str, ...]] = {}
    for part in parts:
        counts.update(part.counts)
        pieces.update(part.pieces)
    return Words(counts, pieces)


def split_words(text: str, tokenizer: Tokenizer) -> list[str]:
    """Normalised and divided as before the model; where nothing divides (SentencePiece's way), at each ▁."""
    backend: Any = tokenizer.backend
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    else:
        words = [text]
    return [part for word in words for part in _at_marks(word)]


def _at_marks(word: str) -> list[str]:
    first, *rest = word.split("▁")
    return [part for part in (first, *(f"▁{part}" for part in rest)) if part]


def in_stretches(texts: Sequence[str], count: int) -> list[Sequence[str]]:
    """`texts` in `count` stretches of neighbours, about equally many in each."""
    return [texts[len(texts) * i // count : len(texts) * (i + 1) // count] for i in range(count)]
