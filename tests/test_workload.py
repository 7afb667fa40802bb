"""Expected batches against batches drawn and packed for real."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Sequence

import pytest

from tenfold.data.tokenize import Sample
from tenfold.workload import MicroBatch, Workload, _buckets, filling_step, power_of_two

DRAWS = 300


def make_lengths(rows: int = 397, seed: int = 0) -> list[int]:
    """A long-tailed mix, as of real texts."""
    draw = random.Random(seed)
    return [min(512, max(3, int(draw.lognormvariate(4, 0.8)))) for _ in range(rows)]


def make_workload(lengths: Sequence[int]) -> Workload:
    return Workload(tuple(sorted(Counter(lengths).items())), loss_tokens=len(lengths))


@pytest.mark.parametrize(("least", "found"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
def test_power_of_two(least: int, found: int) -> None:
    assert power_of_two(least) == found


def test_counts_samples() -> None:
    samples = [
        Sample(array("I", [1, 2, 3]), bytes([0, 1, 1]), None, "a.jsonl", 1),
        Sample(array("I", [1, 2, 3]), bytes([0, 0, 1]), None, "a.jsonl", 2),
        Sample(array("I", [1]), bytes([0]), None, "a.jsonl", 3),
    ]
    workload = Workload.from_samples(samples, evaluation=samples[:1], labels=4)
    assert workload == Workload(((1, 1), (3, 2)), loss_tokens=3, evaluation_tokens=3, labels=4)
    assert (workload.rows, workload.tokens, workload.longest) == (3, 7, 3)


def test_labels_bear_one_loss_a_row() -> None:
    assert Workload.from_samples([Sample([1, 2], None, 0, "a.csv", 1)] * 5, labels=2).loss_tokens == 5


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(("batch_rows", "micro_rows"), [(32, 8), (32, 5), (10, 10), (1, 1), (1000, 64), (7, 32)])
def test_expected_padding_is_that_of_shuffled_batches(batch_rows: int, micro_rows: int, multiple: int) -> None:
    lengths = make_lengths()
    draw = random.Random(1)
    tokens, pairs, batches = 0, 0, 0
    for _ in range(DRAWS):
        draw.shuffle(lengths)
        steps = [lengths[start : start + batch_rows] for start in range(0, len(lengths), batch_rows)]
        for micro in (step[at : at + micro_rows] for step in steps for at in range(0, len(step), micro_rows)):
            step = 1 if multiple == 1 else filling_step(max(micro), multiple)
            longest = math.ceil(max(micro) / step) * step
            tokens += len(micro) * longest
            pairs += len(micro) * longest**2
            batches += 1
    epoch = make_workload(lengths).padded_epoch(batch_rows, min(micro_rows, batch_rows), multiple)
    assert epoch.micro_batches == batches / DRAWS
    assert epoch.tokens == pytest.approx(tokens / DRAWS, rel=0.01)
    assert epoch.pairs == pytest.approx(pairs / DRAWS, rel=0.02)


@pytest.mark.parametrize("least", [2, 64])
def test_sizes_to_fill_up_to_are_few_and_near(least: int) -> None:
    """Eight an octave; filler is an eighth at most, but for what is shorter than eight of the least."""
    sizes = {size: -(-size // filling_step(size, least)) * filling_step(size, least) for size in range(1, 4096)}
    assert all(filled < size + max(least, size / 8) for size, filled in sizes.items())
    assert len({filled for size, filled in sizes.items() if 1024 < size <= 2048}) == 8
    assert len({filled for size, filled in sizes.items() if size <= 8 * least}) <= 8


def test_rows_are_drawn_without_replacement() -> None:
    """Negative control: with replacement, a batch of all rows would not be sure to hold the longest."""
    workload = make_workload([1] * 9 + [100])
    assert workload.expected_longest(10) == pytest.approx(100)
    assert workload.expected_longest(5) == pytest.approx(0.5 * 100 + 0.5 * 1)
    assert pytest.approx(workload.expected_longest(5), rel=0.05) != 1 + 99 * (1 - 0.9**5)


def first_fit_decreasing(step: Sequence[int], tokens: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for length in sorted(step, reverse=True):
        room = next((rows for rows in bins if sum(rows) + length <= tokens), None)
        if room is None:
            bins.append([length])
        else:
            room.append(length)
    return bins


@pytest.mark.parametrize(("batch_rows", "tokens"), [(32, 512), (32, 1024), (32, 8192), (64, 2048), (8, 100)])
def test_packed_micro_batches_are_as_many_and_as_full_as_foretold(batch_rows: int, tokens: int) -> None:
    lengths = make_lengths()
    draw = random.Random(2)
    draws = 30
    count, pairs, fullest = 0, 0.0, 0
    for _ in range(draws):
        draw.shuffle(lengths)
        for start in range(0, len(lengths), batch_rows):
            bins = first_fit_decreasing(lengths[start : start + batch_rows], tokens)
            count += len(bins)
            pairs += sum(_buckets(rows)[2] for rows in bins)
            fullest = max(fullest, *map(sum, bins))
    workload = make_workload(lengths)
    epoch = workload.packed_epoch(batch_rows, tokens)
    assert epoch.tokens == sum(lengths)
    assert epoch.micro_batches == pytest.approx(count / draws, rel=0.12)
    assert epoch.pairs == pytest.approx(pairs / draws, rel=0.12)
    assert workload.largest_packed(batch_rows, tokens).tokens == pytest.approx(fullest, rel=0.08)


def test_a_step_of_all_rows_is_packed_exactly() -> None:
    lengths = [120, 90, 64, 17]
    largest = make_workload(lengths).largest_packed(4, 4096)
    cells, pairs = 2 * 120 + 2 * 64, 2 * 120**2 + 2 * 64**2
    assert largest == MicroBatch(4, 291, 120, cells, pairs, masked=False)


@pytest.mark.parametrize(
    "lengths", [[30, 20, 10, 8, 8, 7, 3], [500, 490, 300, 100, 70, 64, 64, 2], [65], [200, 150, 149]]
)
def test_buckets_are_those_of_the_rig(lengths: list[int]) -> None:
    segments = pytest.importorskip("tenfold.rig.segments")
    buckets = segments.segment_rows(lengths).buckets
    cells = sum(bucket.valid.numel() for bucket in buckets)
    pairs = sum(bucket.valid.numel() * bucket.length for bucket in buckets)
    assert _buckets(lengths) == (len(buckets), cells, pairs)


def test_the_largest_padded_micro_batch_has_the_longest_row() -> None:
    workload = make_workload([10] * 99 + [300])
    assert workload.largest_padded(8) == MicroBatch(8, 2400, 300, 2400, 2400 * 300, masked=True)
    assert workload.largest_padded(8, 16) == MicroBatch(8, 2560, 320, 2560, 2560 * 320, masked=True)
    assert not workload.largest_padded(1).masked
    assert not make_workload([10] * 99).largest_padded(8).masked


def test_a_high_value_of_a_steps_tokens_is_never_more_than_all() -> None:
    workload = make_workload(make_lengths())
    assert workload.tokens_of(10_000) == workload.tokens
    assert workload.tokens_of(32) < 32 * workload.longest
    draw = random.Random(3)
    lengths = make_lengths()
    over = sum(sum(draw.sample(lengths, 32)) > workload.tokens_of(32) for _ in range(2000))
    assert over / 2000 < 0.01
