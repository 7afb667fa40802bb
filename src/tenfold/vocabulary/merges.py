"""Which tokens a byte-pair encoding would learn next from a text: its training continued where it stopped.

New merges rank behind all old ones, so that the text is first divided as before and then joined further. Every new
token is two tokens that stood side by side, and none is out of reach (arXiv 2512.03989 compares this with adding the
tokens of a vocabulary that was trained apart).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import pairwise

from tenfold.vocabulary.words import Words

Pair = tuple[str, str]


BARRIER = re.compile(r"<0x[0-9A-F]{2}>|<unk>")
"""Pieces that stand for what the vocabulary has no letters for: they join to nothing that could be found in a text."""


class _Pairs:
    """Neighbouring tokens of all words: how often each pair occurs, and in which words."""

    def __init__(self, words: Words) -> None:
        self.words = {word: list(pieces) for word, pieces in words.pieces.items()}
        self.counts = words.counts
        self.occurrences: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[str]] = defaultdict(set)
        for word, pieces in self.words.items():
            self._add(word, pieces)
        self.queue = [(-count, pair) for pair, count in self.occurrences.items()]
        heapq.heapify(self.queue)

    def pop(self, least: int) -> tuple[Pair, int] | None:
        """The most frequent pair and its count, ties in the alphabet's order; None if none occurs `least` times."""
        while self.queue:
            negative, pair = heapq.heappop(self.queue)
            count = self.occurrences[pair]
            if count == -negative:
                return (pair, count) if count >= least else None
            if count >= least:
                heapq.heappush(self.queue, (-count, pair))
        return None

    def join(self, pair: Pair) -> None:
        """Make one token of the pair wherever it occurs."""
        changed: set[Pair] = set()
        for word in self.places.pop(pair, ()):
            old = self.words[word]
            new = _joined(old, pair)
            if len(new) == len(old):
                continue  # an earlier join has taken one of the two
            for neighbours in pairwise(old):
                if neighbours not in self.occurrences:
                    continue  # a barrier is one of the two
                self.occurrences[neighbours] -= self.counts[word]
                changed.add(neighbours)
            self.words[word] = new
            changed.update(self._add(word, new))
        del self.occurrences[pair]
        for neighbours in changed - {pair}:
            heapq.heappush(self.queue, (-self.occurrences[neighbours], neighbours))

    def _add(self, word: str, pieces: list[str]) -> set[Pair]:
        found: set[Pair] = set()
        for pair in pairwise(pieces):
            if any(BARRIER.fullmatch(piece) for piece in pair):
                continue
            self.occurrences[pair] += self.counts[word]
            self.places[pair].add(word)
            found.add(pair)
        return found


def next_tokens(words: Words, known: Collection[str], least: int) -> Iterator[tuple[str, int]]:
    """Tokens that are not `known`, the most frequent first, each with how many token positions it saves; until one
    saves fewer than `least`."""
    pairs = _Pairs(words)
    found = set(known)
    while (best := pairs.pop(least)) is not None:
        (left, right), saved = best
        if left + right in found:  # it is reached another way already, and two ways would not be the same token
            continue
        pairs.join(best[0])
        found.add(left + right)
        yield left + right, saved


def _joined(pieces: list[str], pair: Pair) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(pieces):
        if tuple(pieces[place : place + 2]) == pair:
            found.append(pair[0] + pair[1])
            place += 2
        else:
            found.append(pieces[place])
            place += 1
    return found
