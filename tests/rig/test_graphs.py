"""What a recorded pass depends on. That replaying equals computing is checked on a GPU, in tests/test_gpu.py."""

from __future__ import annotations

from dataclasses import replace

import torch

from rigs import make_rows
from tenfold.rig.graphs import cloned, shape_key
from tenfold.rig.packing import PackedLayout
from tenfold.rig.tensors import tensors_of

LAYOUT = PackedLayout(64, 0, steady=True)


def test_batches_of_one_shape_share_a_key_and_others_do_not() -> None:
    first, *_ = LAYOUT(make_rows("sft", count=2, seed=1))
    again = replace(first, input_ids=first.input_ids + 1, loss_count=first.loss_count - 1, tokens=1, rows=9)
    assert shape_key(first) == shape_key(again)
    longer, *_ = PackedLayout(128, 0, steady=True)(make_rows("sft", count=9, seed=1))
    assert shape_key(first) != shape_key(longer)
    assert first.segments is not None
    other = replace(first, segments=replace(first.segments, longest=2 * first.segments.longest))
    assert shape_key(first) != shape_key(other)


def test_a_copy_shares_no_tensor() -> None:
    batch, *_ = LAYOUT(make_rows("sft", count=4))
    copy = cloned(batch)
    pairs = list(zip(tensors_of(batch), tensors_of(copy), strict=True))
    assert len(pairs) == 5  # ids, positions, where rows start, targets, which bear loss
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
