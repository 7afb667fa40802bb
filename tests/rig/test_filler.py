"""Filler makes shapes repeat and changes nothing else; what it must not do, when done, is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Cut, Fuse, LoRA, Pack, on_rig
from tenfold.rig.batch import Batch, PaddedLayout
from tenfold.rig.chunked_loss import chunked_cross_entropy
from tenfold.rig.filler import filled_multiple
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig, Task
from tiny import DECODERS, FAMILIES

CPU = torch.device("cpu")
CASES: list[tuple[str, Task]] = [(family, "classify") for family in FAMILIES] + [(family, "sft") for family in DECODERS]


def with_multiple(rig: Rig, multiple: int) -> Rig:
    assert isinstance(rig.layout, PackedLayout)
    return replace(rig, layout=replace(rig.layout, multiple=multiple))


def test_only_where_shapes_are_compiled() -> None:
    assert filled_multiple(CPU, torch.float32, 2048) == 1
    assert filled_multiple(torch.device("cuda"), torch.bfloat16, 2048) == 1
    assert [filled_multiple(CPU, torch.bfloat16, largest) for largest in (1, 256, 512, 2048)] == [64, 64, 64, 256]


@pytest.mark.parametrize(("family", "task"), CASES)
def test_filler_changes_no_step(family: str, task: Task) -> None:
    rows = make_rows(task)
    rig = on_rig((Pack(tokens=64),), make_rig(family, task))
    filled = with_multiple(rig, 16)
    if task == "sft":
        assert all(batch.input_ids.numel() % 16 == 0 for batch in filled.layout(rows))
    assert [batch.tokens for batch in filled.layout(rows)] == [batch.tokens for batch in rig.layout(rows)]
    loss, gradient = step_gradient(rig, rows)
    filled_loss, filled_gradient = step_gradient(filled, rows)
    assert filled_loss == pytest.approx(loss, rel=2e-6)
    assert relative_error(gradient, filled_gradient) < 2e-6


def with_fewest(rig: Rig, fewest: int) -> Rig:
    assert isinstance(rig.layout, PaddedLayout)
    return replace(rig, layout=replace(rig.layout, rows=2, fewest=fewest))


@pytest.mark.parametrize(("family", "task"), CASES)
def test_padding_on_changes_no_step(family: str, task: Task) -> None:
    rows = make_rows(task)
    rig = make_rig(family, task)
    plain, filled = with_fewest(rig, 1), with_fewest(rig, 32)
    shapes = [batch.input_ids.shape for batch in filled.layout(rows)]
    assert all(length % 16 == 0 for _, length in shapes)
    assert any(before.input_ids.shape != after for before, after in zip(plain.layout(rows), shapes, strict=True))
    loss, gradient = step_gradient(plain, rows)
    filled_loss, filled_gradient = step_gradient(filled, rows)
    assert filled_loss == pytest.approx(loss, rel=2e-6)
    assert relative_error(gradient, filled_gradient) < 2e-6


def test_rows_of_one_length_are_left_as_they_are() -> None:
    """They repeat by themselves, and attention is fastest where none is masked."""
    rows = [row for row in make_rows("sft") if len(row.input_ids) == len(make_rows("sft")[0].input_ids)]
    batches = with_fewest(make_rig("llama", "sft"), 64).layout(rows)
    assert all(batch.attention_mask is None for batch in batches)


@pytest.mark.parametrize("pack", [(), (Pack(tokens=64),)], ids=["padded", "packed"])
def test_the_last_block_sees_a_number_of_rows_that_repeats(pack: tuple[Cut, ...]) -> None:
    """Of tokens that bear loss, and one that bears none as often as it takes: it changes no step."""
    rows = make_rows("sft")
    rig = on_rig((*pack, Fuse()), make_rig("llama", "sft"))
    filled = with_multiple(rig, 16) if pack else with_fewest(rig, 16)
    batches = filled.layout(rows)
    assert all(len(batch.loss_index) % 16 == 0 for batch in batches)
    assert any(len(batch.loss_index) > batch.loss_count for batch in batches)
    loss, gradient = step_gradient(rig, rows)
    filled_loss, filled_gradient = step_gradient(filled, rows)
    assert filled_loss == pytest.approx(loss, rel=2e-6)
    assert relative_error(gradient, filled_gradient) < 2e-6


def test_a_row_of_loss_in_the_place_of_the_idle_one_is_noticed() -> None:
    rows = make_rows("sft")
    rig = with_multiple(on_rig((Pack(tokens=64), Fuse()), make_rig("llama", "sft")), 16)

    def doubled(batch: Batch) -> Batch:
        places = batch.loss_index.clone()
        places[batch.loss_count :] = places[0]
        return replace(batch, loss_index=places)

    _, gradient = step_gradient(rig, rows)
    wrong = replace(rig, layout=lambda samples: [doubled(batch) for batch in rig.layout(samples)])
    assert relative_error(gradient, step_gradient(wrong, rows)[1]) > 1e-4


def test_filler_that_bears_loss_is_noticed() -> None:
    rows = make_rows("sft")
    rig = with_multiple(on_rig((Pack(tokens=64),), make_rig("llama", "sft")), 16)

    def bear(batch):
        targets = batch.targets.clone()
        targets[:, batch.tokens :] = 5
        return replace(batch, targets=targets)

    _, gradient = step_gradient(rig, rows)
    bearing = replace(rig, layout=lambda samples: [bear(batch) for batch in rig.layout(samples)])
    assert relative_error(gradient, step_gradient(bearing, rows)[1]) > 1e-4


def test_the_chunked_loss_is_filled_too() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(70, 16), torch.randn(300, 16)
    targets = torch.randint(0, 300, (70,))
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    narrow = hidden.bfloat16().requires_grad_()
    found = chunked_cross_entropy(narrow, weight, None, targets, rows=64)
    assert found.item() == pytest.approx(float(expected), rel=0.01)
    found.backward()
    wide = hidden.clone().requires_grad_()
    torch.nn.functional.cross_entropy(wide @ weight.T, targets, reduction="sum").backward()
    assert narrow.grad is not None
    assert wide.grad is not None
    assert relative_error(wide.grad, narrow.grad.float()) < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_step_is_near_the_wide_one(family: str) -> None:
    """bfloat16 as on a CPU with AMX: filler, float32 attention and heads; the gradient points the same way."""
    rows = make_rows("classify")
    cuts = (LoRA(rank=4), Pack(tokens=256))

    def step(dtype: torch.dtype) -> tuple[float, torch.Tensor]:
        torch.manual_seed(1)
        rig = on_rig(cuts, replace(make_rig(family, "classify"), dtype=dtype))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            return step_gradient(rig, rows)

    loss, gradient = step(torch.float32)
    narrow_loss, narrow_gradient = step(torch.bfloat16)
    assert narrow_loss == pytest.approx(loss, rel=0.02)
    assert torch.cosine_similarity(gradient, narrow_gradient.float(), dim=0) > 0.98
