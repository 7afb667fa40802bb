"""Steady shapes: few different ones, the same tokens, rows still apart."""

from __future__ import annotations

import pytest
import torch

from rigs import make_rows
from tenfold.rig.batch import IGNORED
from tenfold.rig.packing import STEPS_OF_LENGTH, PackedLayout, filling_rows
from tenfold.rig.ragged import attend_ragged, ragged_rows


def test_rows_of_one_length_are_uniform() -> None:
    rows = ragged_rows([4, 4, 4])
    assert rows.uniform
    assert rows.longest == 4
    assert rows.starts.tolist() == [0, 4, 8, 12]


def test_filler_of_the_same_length_leaves_rows_ragged() -> None:
    """Else a micro-batch that is so by chance would be compiled for by itself."""
    rows = ragged_rows([4], [4])
    assert not rows.uniform
    assert rows.starts.tolist() == [0, 4, 8]


def test_places_beyond_the_last_row_are_empty() -> None:
    rows = ragged_rows([5, 2, 4])
    assert not rows.uniform
    assert rows.starts.tolist() == [0, 5, 7, 11, 11]


@pytest.mark.parametrize(
    ("lengths", "places", "longest"),
    [([5, 2, 4], 4, 1024), ([1500, 548], 16, 2048), ([200] * 80 + [384], 128, 1024), ([50] * 300 + [40], 512, 1024)],
)
def test_different_rows_have_few_different_shapes(lengths: list[int], places: int, longest: int) -> None:
    rows = ragged_rows(lengths)
    assert (len(rows.starts) - 1, rows.longest) == (places, longest)


@pytest.mark.parametrize(
    ("lengths", "tokens", "filling"),
    [([30, 29], 64, [5]), ([8], 64, []), ([3], 64, [3, 2]), ([10, 7], 16, [1]), ([20], 16, [])],
)
def test_filling_reaches_the_next_eighth_in_rows_no_longer_than_the_real_ones(
    lengths: list[int], tokens: int, filling: list[int]
) -> None:
    assert filling_rows(lengths, tokens) == filling
    assert sum(lengths + filling) % (tokens // STEPS_OF_LENGTH) == 0


def test_a_steady_layout_holds_the_same_tokens_and_targets() -> None:
    rows = make_rows("sft", count=8)
    plain, steady = PackedLayout(128, 0)(rows), PackedLayout(128, 0, steady=True)(rows)
    assert all(b.input_ids.shape[1] % 16 == 0 for b in steady)
    assert any(b.input_ids.shape[1] % 16 for b in plain)
    for a, b in zip(plain, steady, strict=True):
        size = a.input_ids.shape[1]
        assert torch.equal(a.input_ids, b.input_ids[:, :size])
        assert torch.equal(a.targets, b.targets[:, :size])
        assert (b.targets[:, size:] == IGNORED).all()
        assert (a.loss_count, a.tokens, a.rows) == (b.loss_count, b.tokens, b.rows)
        picked = b.targets.flatten()[b.loss_index]
        assert int((picked != IGNORED).sum()) == a.loss_count == int((b.targets != IGNORED).sum())
        assert b.loss_index.numel() % (b.input_ids.shape[1] // STEPS_OF_LENGTH) == 0


def test_uniform_rows_attend_only_to_themselves() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 4, 12, 8) for _ in range(3))
    found = attend_ragged(query, key, value, ragged_rows([4, 4, 4]), causal=True, scaling=None, window=None)
    for row in range(3):
        place = slice(4 * row, 4 * row + 4)
        q, k, v = (state[:, :, place] for state in (query, key, value))
        alone = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        assert torch.allclose(found[:, place], alone.transpose(1, 2), atol=1e-6)
    together = attend_ragged(query, key, value, ragged_rows([12]), causal=True, scaling=None, window=None)
    assert not torch.allclose(found, together, atol=1e-3)
