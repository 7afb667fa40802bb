"""Which whole words a WordPiece vocabulary lacks that a text would be shorter with."""

from __future__ import annotations

from collections.abc import Iterator

from tenfold.vocabulary.words import Words


def missing_words(words: Words, least: int) -> Iterator[tuple[str, int]]:
    """Words of two pieces and more, the one that saves most first, each with how many token positions it saves; until
    one saves fewer than `least`.

    WordPiece takes the longest token that a word begins with, so that a new word may also change how longer words
    divide. That is not foreseen here, but it is counted where the whole text is tokenised again.
    """
    savings = {word: count * (len(words.pieces[word]) - 1) for word, count in words.counts.items()}
    ranked = sorted(savings.items(), key=lambda item: (-item[1], item[0]))
    for word, saved in ranked:
        if saved < least:
            return
        yield word, saved
