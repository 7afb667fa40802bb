"""Stretches of text in two vocabularies, token beside token."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tenfold.data.tokenizer import Tokenizer

Offsets = Sequence[tuple[int, int]]
Division = tuple[list[int], list[tuple[int, int]]]
"""Ids, and the characters that each of them stands for."""

POOL = 32
"""Times the tokens that are chosen: so many are looked through, whatever the length of the texts."""

TEXTS_AT_ONCE = 32
"""That a tokenizer divides, on all cores."""


@dataclass(frozen=True)
class Window:
    """The same stretch in both vocabularies."""

    old: list[int]
    new: list[int]
    ends: list[int]
    """For each new token the place of the old token that ends where it ends; -1 where none does."""


def choose_windows(
    texts: Sequence[str], old: Tokenizer, new: Tokenizer, wanted: frozenset[int], width: int, most: int
) -> list[Window]:
    """Windows of about `width` new tokens, `most` tokens in all: those first that show, for their length, most of the
    `wanted` tokens that are common and have been seen least. What a token is learned from n times is off by about 1/n,
    as often as it stands in the texts."""
    shown = [
        (window, [token for token in window.new if token in wanted])
        for window in _pool(texts, old, new, width, POOL * most)
    ]
    common = Counter(token for _, tokens in shown for token in tokens)
    seen: Counter[int] = Counter()

    def worth(place: int) -> float:
        window, tokens = shown[place]
        return sum(common[token] / (1 + seen[token]) ** 2 for token in tokens) / len(window.new)

    best = [(-worth(place), place) for place in range(len(shown))]
    heapq.heapify(best)
    chosen: list[Window] = []
    while best and most > 0:
        _, place = heapq.heappop(best)
        found = worth(place)  # less than when it was put there, if its tokens have been seen since
        if best and found < -best[0][0]:
            heapq.heappush(best, (-found, place))
        elif found > 0:
            chosen.append(shown[place][0])
            seen.update(shown[place][1])
            most -= len(shown[place][0].new)
    return chosen


def _pool(texts: Sequence[str], old: Tokenizer, new: Tokenizer, width: int, most: int) -> list[Window]:
    found: list[Window] = []
    tokens = 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        for before, after in zip(old.encode_offsets(some), new.encode_offsets(some), strict=True):
            found += _windows(before, after, width)
            tokens += len(after[0])
        if tokens >= most:
            break
    return found


def _windows(before: Division, after: Division, width: int) -> Iterator[Window]:
    (old_ids, old_offsets), (new_ids, new_offsets) = before, after
    ends = align(old_offsets, new_offsets)
    cuts = [0]
    for place, end in enumerate(ends):
        if end >= 0 and place + 1 - cuts[-1] >= width:
            cuts.append(place + 1)
    if cuts[-1] < len(new_ids) and ends[-1] >= 0:
        cuts.append(len(new_ids))
    for first, last in pairwise(cuts):
        start = 0 if first == 0 else ends[first - 1] + 1
        inside = [end - start if end >= 0 else -1 for end in ends[first:last]]
        if last - first > 1:
            yield Window(old_ids[start : ends[last - 1] + 1], new_ids[first:last], inside)


def align(old: Offsets, new: Offsets) -> list[int]:
    """For each new token the place of the last old token that ends at the same character, -1 if none does.

    Where several tokens end at one character (bytes of one letter), they are matched from behind.
    """
    found: list[int] = []
    place = len(old) - 1
    for _, end in reversed(new):
        while place >= 0 and old[place][1] > end:
            place -= 1
        if place >= 0 and old[place][1] == end:
            found.append(place)
            place -= 1
        else:
            found.append(-1)
    return found[::-1]
