"""A dataset on paper: how long its rows are, how many of their tokens bear loss, and what batches they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, exp, lgamma, sqrt
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenfold.data.tokenize import Sample

BUCKET_FILL = 0.75
"""A packed row joins an attention bucket if it is at least this long beside the longest there: at most 1 / 0.75^2 = 1.8
times the query-key pairs that it needs."""

SHORT_ROW_TOKENS = 64
"""Packed rows up to this length share one bucket: below it a kernel call costs more than the padding it would avoid."""

NARROWED_SHARE = 7 / 8
"""Where at most this share of a micro-batch's tokens bear loss, the last block leaves the others out. Above, the copies
that it takes to pick rows and to put them back cost about what they save: a dozen passes over the hidden states, where
a block makes some hundreds of multiplications for each number of them."""

FEWEST = 64
"""Tokens that a micro-batch is filled up to at least where each new shape is compiled: rig/filler."""

REPRESENTATIVE_ROWS = 2048
"""Rows of the epoch that stands for all packed epochs, at most: its quantiles are exact to a tenth of a percent."""


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass computes on."""

    rows: float
    tokens: float
    """Padding included."""
    longest: float
    """Tokens of the longest row."""
    cells: float
    """Places for tokens that attention works on: `tokens`, or more where packed rows are gathered into buckets."""
    pairs: float
    """Query-key pairs of those cells."""
    masked: bool
    """Attention that looks both ways gets a mask of rows x longest x longest, because rows of a padded micro-batch
    differ in length."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data computes, in expectation over the shuffle."""

    micro_batches: float
    tokens: float
    """Padding included."""
    pairs: float
    """Query-key pairs."""
    buckets: float = 0.0
    """Kernel calls of attention in a block, where packed rows are gathered into buckets."""


@dataclass(frozen=True)
class NewVocabulary:
    """The same rows in the vocabulary that the cut warm_start would give the model."""

    workload: Workload
    tokens: tuple[str, ...]
    """Added ones; empty where another whole vocabulary takes the old one's place."""
    table_rows: int
    """Rows that the embeddings then have."""
    new_rows: int
    """Those of tokens that the old vocabulary lacks."""
    least_saved: int = 0
    """Positions of the training rows that a row had to save to be added; 0 where nobody asked."""
    share_on_new_text: float | None = None
    """Positions per old position on texts that did not help to choose the tokens."""


@dataclass(frozen=True)
class Workload:
    """The histogram of token lengths of the training rows."""

    lengths: tuple[tuple[int, int], ...]
    """(tokens, rows with so many), shortest first."""
    loss_tokens: int
    """Targets that bear loss; for labels one per row."""
    evaluation_tokens: int = 0
    labels: int = 0
    """Distinct labels; 0 without."""
    new_vocabulary: NewVocabulary | None = None
    """Where a recipe asks for one."""

    @classmethod
    def from_samples(cls, samples: Iterable[Sample], evaluation: Iterable[Sample] = (), labels: int = 0) -> Workload:
        """The workload of tokenised rows."""
        counts: Counter[int] = Counter()
        loss_tokens = 0
        for sample in samples:
            counts[len(sample.input_ids)] += 1
            loss_tokens += 1 if sample.loss_mask is None else sum(sample.loss_mask)
        held_out = sum(len(sample.input_ids) for sample in evaluation)
        return cls(tuple(sorted(counts.items())), loss_tokens, held_out, labels)

    def __hash__(self) -> int:
        """Cheap, because results are remembered by workload: histograms that differ in their sums alone may collide."""
        return hash((self.rows, self.tokens, self.loss_tokens))

    @cached_property
    def rows(self) -> int:
        """Training rows."""
        return sum(count for _, count in self.lengths)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all training rows, without padding."""
        return sum(length * count for length, count in self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.lengths[-1][0]

    @property
    def mean(self) -> float:
        """Mean tokens per row."""
        return self.tokens / self.rows

    @cached_property
    def mean_of_squares(self) -> float:
        """Mean of length squared: what attention costs per row."""
        return sum(length**2 * count for length, count in self.lengths) / self.rows

    def expected_longest(self, rows: int) -> float:
        """The expected longest of `rows` different random rows, exact: the sum of l x (P(all <= l) - P(all < l))."""
        return _longest_moments(self, min(rows, self.rows), 1)[0]

    def tokens_of(self, rows: int) -> float:
        """A high value of the tokens in `rows` different random rows: mean plus three standard deviations."""
        rows = min(rows, self.rows)
        variance = max(0.0, self.mean_of_squares - self.mean**2) * (self.rows - rows) / max(1, self.rows - 1)
        if rows == self.rows:
            return self.tokens
        return min(rows * self.longest, rows * self.mean + 3 * sqrt(rows * variance))

    def quantiles(self, count: int) -> list[int]:
        """`count` lengths at even quantiles, shortest first."""
        found: list[int] = []
        seen = 0
        for length, rows in self.lengths:
            seen += rows
            while len(found) < count and (len(found) + 0.5) * self.rows / count < seen:
                found.append(length)
        return found

    def padded_epoch(self, batch_rows: int, micro_rows: int, multiple: int = 1) -> Epoch:
        """A shuffled pass in steps of `batch_rows`, in padded micro-batches of `micro_rows`: the exact expectation.

        `multiple`: rows are padded on to a multiple of `filling_step` of their length and this; 1 leaves them.
        """
        return _padded_epoch(self, batch_rows, micro_rows, multiple)

    def packed_epoch(self, batch_rows: int, tokens: int, multiple: int = 1, ragged: bool = False) -> Epoch:
        """A pass in steps of `batch_rows`, packed into micro-batches of `tokens`, by way of a representative epoch.

        Micro-batches are filled up to a multiple of so many tokens. `ragged` rows are attended row by row, and the
        filling like rows of the longest length; else they are gathered into buckets of like length, without filling.
        """
        return _packed_epoch(self, batch_rows, tokens, multiple, ragged)

    def representative_bins(self, batch_rows: int, tokens: int) -> tuple[list[int], ...]:
        """The micro-batches, first-fit decreasing, of an epoch whose rows stand at even quantiles of the histogram."""
        return _representative_bins(self, batch_rows, tokens)

    def largest_padded(self, micro_rows: int, multiple: int = 1) -> MicroBatch:
        """The micro-batch with the longest row: every epoch has it."""
        rows, longest = min(micro_rows, self.rows), _padded_on(self.longest, multiple)
        cells = rows * longest
        return MicroBatch(rows, cells, longest, cells, cells * longest, rows > 1 and len(self.lengths) > 1)

    def largest_packed(self, batch_rows: int, tokens: int, multiple: int = 1) -> MicroBatch:
        """The fullest micro-batch to be expected: up to `tokens`, or a longer row that stands alone, filled up."""
        return _largest_packed(self, batch_rows, tokens, multiple)


@lru_cache(maxsize=1024)
def _longest_moments(workload: Workload, rows: int, multiple: int) -> tuple[float, float]:
    """Expected longest of `rows` rows drawn without replacement, padded on, and expected square of it."""
    below, seen, first, second = 0.0, 0, 0.0, 0.0
    # P(all rows <= l) = C(n(l), rows) / C(n, rows), with n(l) rows as short as l; the factors of rows! cancel.
    every = lgamma(workload.rows + 1) - lgamma(workload.rows - rows + 1)
    for length, count in workload.lengths:
        seen += count
        if seen < rows:
            continue
        share = 1.0 if seen == workload.rows else exp(lgamma(seen + 1) - lgamma(seen - rows + 1) - every)
        longest = _padded_on(length, multiple)
        first += longest * (share - below)
        second += longest**2 * (share - below)
        below = share
    return first, second


@lru_cache(maxsize=1024)
def _padded_epoch(workload: Workload, batch_rows: int, micro_rows: int, multiple: int) -> Epoch:
    full_steps, last = divmod(workload.rows, batch_rows)
    count, tokens, pairs = 0.0, 0.0, 0.0
    for steps, step_rows in ((full_steps, batch_rows), (1, last)):
        whole, rest = divmod(step_rows, micro_rows)
        for batches, rows in ((whole, micro_rows), (1, rest)):
            if steps and batches and rows:
                longest, squared = _longest_moments(workload, rows, multiple)
                count += steps * batches
                tokens += steps * batches * rows * longest
                pairs += steps * batches * rows * squared
    return Epoch(count, tokens, pairs)


@lru_cache(maxsize=1024)
def _packed_epoch(workload: Workload, batch_rows: int, tokens: int, multiple: int, ragged: bool) -> Epoch:
    bins = _representative_bins(workload, batch_rows, tokens)
    scale = workload.tokens / sum(sum(rows) for rows in bins)
    found = [(0, 0.0, _ragged_pairs(rows, multiple)) if ragged else _buckets(rows) for rows in bins]
    buckets, _, pairs = (scale * sum(column) for column in zip(*found, strict=True))
    filled = scale * sum(_filled(sum(rows), multiple) for rows in bins)
    return Epoch(max(ceil(workload.rows / batch_rows), scale * len(bins)), filled, pairs, buckets)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least`."""
    return 1 << (least - 1).bit_length()


def filling_step(size: int, least: int) -> int:
    """To a multiple of what `size` is filled up where sizes shall repeat: a power of two, so that at most an eighth is
    filler and an octave has eight sizes, but `least` for short ones."""
    return max(least, 1 << max(0, (size // 8).bit_length() - 1))


def _padded_on(length: int, multiple: int) -> float:
    return float(length) if multiple == 1 else _filled(length, filling_step(length, multiple))


def _filled(tokens: float, multiple: int) -> float:
    return float(ceil(tokens / multiple) * multiple)


def _ragged_pairs(lengths: Sequence[int], multiple: int) -> float:
    """Query-key pairs of rows attended one by one, and of the rows of padding that fill the micro-batch."""
    longest = max(lengths)
    whole, rest = divmod(_filled(sum(lengths), multiple) - sum(lengths), longest)
    return float(sum(length**2 for length in lengths) + whole * longest**2 + rest**2)


@lru_cache(maxsize=1024)
def _largest_packed(workload: Workload, batch_rows: int, tokens: int, multiple: int) -> MicroBatch:
    bins = _representative_bins(workload, batch_rows, tokens)
    fullest = max(bins, key=sum)
    shown = sum(fullest)
    most = max(shown, min(max(tokens, workload.longest), workload.tokens_of(batch_rows)))
    # Of two that are as full, the one with longer rows has more pairs.
    cells, pairs = (max(column) for column in zip(*(_buckets(rows)[1:] for rows in bins), strict=True))
    scale = most / shown
    filled = _filled(most, multiple)
    return MicroBatch(len(fullest) * scale, filled, workload.longest, cells * scale, pairs * scale, masked=False)


@lru_cache(maxsize=1024)
def _representative_bins(workload: Workload, batch_rows: int, tokens: int) -> tuple[list[int], ...]:
    """The micro-batches, first-fit decreasing, of an epoch whose rows stand at even quantiles of the histogram."""
    rows = workload.quantiles(min(workload.rows, REPRESENTATIVE_ROWS))
    Random(0).shuffle(rows)
    bins: list[list[int]] = []
    for start in range(0, len(rows), batch_rows):
        bins += _first_fit(sorted(rows[start : start + batch_rows], reverse=True), tokens)
    return tuple(bins)


def _first_fit(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows in bins of at most `tokens`, a longer one alone; each goes to the first bin with room."""
    bins: list[list[int]] = []
    used: list[int] = []
    for length in lengths:
        place = next((i for i, filled in enumerate(used) if filled + length <= tokens), None)
        if place is None:
            bins.append([length])
            used.append(length)
        else:
            bins[place].append(length)
            used[place] += length
    return bins


def _buckets(lengths: Sequence[int]) -> tuple[int, float, float]:
    """(buckets, cells, pairs) of rows, longest first, gathered into attention buckets of like length."""
    count, cells, pairs, head, members = 0, 0, 0, 0, 0
    for length in lengths:
        if not members or not (head <= SHORT_ROW_TOKENS or length >= BUCKET_FILL * head):
            count, cells, pairs = count + 1, cells + members * head, pairs + members * head**2
            head, members = length, 0
        members += 1
    return count, float(cells + members * head), float(pairs + members * head**2)
