"""Exact cuts change no result: same loss, same gradients, on every family. Each check has one that must fail."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Checkpoint, Cut, Fuse, Pack, on_rig
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.model import looks_back_only
from tenfold.rig.rig import Task
from tenfold.rig.segments import segment_rows
from tiny import DECODERS, ENCODERS, FAMILIES

TOLERANCE = 2e-6
"""Relative; float32 has 1.2e-7, and the sums run in another order."""

CASES: list[tuple[str, Task]] = [(family, "classify") for family in FAMILIES] + [(family, "sft") for family in DECODERS]
CUTS: list[tuple[Cut, ...]] = [
    (Pack(tokens=40),),
    (Pack(tokens=1000),),
    (Fuse(loss_rows=5),),
    (Checkpoint(layers=1),),
    (Checkpoint(layers=3),),
    (Pack(tokens=64), Fuse(loss_rows=7), Checkpoint(layers=2)),
]


def applicable(cuts: tuple[Cut, ...], task: Task) -> tuple[Cut, ...]:
    return tuple(cut for cut in cuts if not (task == "classify" and isinstance(cut, Fuse)))


@pytest.mark.parametrize(("family", "task"), CASES)
def test_exact_cuts_give_the_same_step(family: str, task: Task) -> None:
    rows = make_rows(task)
    loss, gradient = step_gradient(make_rig(family, task), rows)
    for cuts in filter(None, (applicable(cuts, task) for cuts in CUTS)):
        cut_loss, cut_gradient = step_gradient(on_rig(cuts, make_rig(family, task)), rows)
        assert cut_loss == pytest.approx(loss, rel=TOLERANCE), cuts
        assert relative_error(gradient, cut_gradient) < TOLERANCE, cuts


@pytest.mark.parametrize(("family", "task"), CASES)
def test_accumulation_changes_nothing(family: str, task: Task) -> None:
    rows = make_rows(task)
    rig = make_rig(family, task)
    pad_id = int(rig.model.config.pad_token_id or 0)
    loss, gradient = step_gradient(replace(rig, layout=PaddedLayout(8, pad_id)), rows)
    for layout in (PaddedLayout(1, pad_id), replace(rig.layout, rows=8), replace(rig.layout, rows=3)):  # type: ignore[type-var]
        other_loss, other_gradient = step_gradient(replace(rig, layout=layout), rows)
        assert other_loss == pytest.approx(loss, rel=TOLERANCE)
        assert relative_error(gradient, other_gradient) < TOLERANCE


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_decoders_need_no_mask_of_padding(family: str) -> None:
    """Those whose every layer looks back only, by what their own layers say."""
    assert looks_back_only(make_rig(family, "sft").model)


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_a_model_that_looks_both_ways_sees_padding_without_a_mask(family: str) -> None:
    """The control: leaving the mask out is noticed."""
    rows = make_rows("classify")
    rig = make_rig(family, "classify")
    assert not looks_back_only(rig.model)
    _, gradient = step_gradient(rig, rows)
    _, seen = step_gradient(replace(rig, layout=replace(rig.layout, causal=True)), rows)  # type: ignore[type-var]
    assert relative_error(gradient, seen) > 100 * TOLERANCE


@pytest.mark.parametrize(("family", "task"), CASES)
def test_rows_that_see_each_other_are_noticed(family: str, task: Task) -> None:
    """The control of packing: the same packed step, but with all rows of a micro-batch as one."""
    rows = make_rows(task)
    rig = on_rig((Pack(tokens=1000),), make_rig(family, task))

    def merge(batch):
        assert batch.segments is not None
        one = segment_rows([batch.tokens])
        return replace(
            batch, segments=replace(one, cells=batch.segments.cells, padded_shape=batch.segments.padded_shape)
        )

    _, gradient = step_gradient(rig, rows)
    merged = replace(rig, layout=lambda samples: [merge(batch) for batch in rig.layout(samples)])
    _, seen = step_gradient(merged, rows)
    assert relative_error(gradient, seen) > 100 * TOLERANCE


@pytest.mark.parametrize("family", [family for family in DECODERS if family != "gpt2"])
def test_positions_that_do_not_restart_are_noticed_only_where_they_are_absolute(family: str) -> None:
    """Rotary positions are relative, so a shift is invisible: the control for positions is GPT-2's below."""
    rows = make_rows("sft")
    rig = on_rig((Pack(tokens=1000),), make_rig(family, "sft"))
    _, gradient = step_gradient(rig, rows)
    shifted = replace(rig, layout=lambda samples: [_shift(batch) for batch in rig.layout(samples)])
    assert relative_error(gradient, step_gradient(shifted, rows)[1]) < 20 * TOLERANCE


def test_absolute_positions_that_do_not_restart_are_noticed() -> None:
    rows = make_rows("sft")
    rig = on_rig((Pack(tokens=1000),), make_rig("gpt2", "sft"))
    _, gradient = step_gradient(rig, rows)
    shifted = replace(rig, layout=lambda samples: [_shift(batch) for batch in rig.layout(samples)])
    assert relative_error(gradient, step_gradient(shifted, rows)[1]) > 100 * TOLERANCE


def _shift(batch):
    return replace(batch, position_ids=batch.position_ids + 1)


@pytest.mark.parametrize("family", DECODERS)
def test_a_loss_over_all_rows_is_noticed(family: str) -> None:
    """The control of the chunked loss: rows that bear no loss must not be in it."""
    rows = make_rows("sft")
    rig = on_rig((Fuse(loss_rows=5),), make_rig(family, "sft"))
    _, gradient = step_gradient(rig, rows)
    unmasked = [replace(row, loss_mask=bytes([0, *[1] * (len(row.input_ids) - 1)])) for row in rows]
    assert relative_error(gradient, step_gradient(rig, unmasked)[1]) > 100 * TOLERANCE


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_mean_of_means_is_noticed(family: str, task: Task) -> None:
    """The control of accumulation: dividing each micro-batch by its own count is another result."""
    rows = make_rows(task)
    plain = make_rig(family, task)
    rig = replace(plain, layout=PaddedLayout(3, int(plain.model.config.pad_token_id or 0)))  # the last has two rows
    _, gradient = step_gradient(rig, rows)
    batches = rig.layout(rows)

    def mean_loss(model, batch):
        whole = sum(b.loss_count for b in batches)
        return rig.loss(model, batch) / batch.loss_count * whole / len(batches)

    assert relative_error(gradient, step_gradient(replace(rig, loss=mean_loss), rows)[1]) > 100 * TOLERANCE


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_block_that_is_run_again_is_run_with_what_it_holds_then(family: str, task: Task) -> None:
    """The control of recomputation: weights that change between the passes show where a block is run again, and the
    comparison sees it."""
    rows = make_rows(task)

    def gradient_of(cuts: tuple[Cut, ...], factor: float) -> torch.Tensor:
        rig = on_rig(cuts, make_rig(family, task))
        (batch,) = PaddedLayout(8, int(rig.model.config.pad_token_id or 0))(rows)
        loss = rig.loss(rig.model, batch)
        block = next(module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer))
        next(weight for weight in block.parameters() if weight.ndim == 2).data.mul_(factor)
        loss.backward()
        return torch.cat([w.grad.flatten() for _, w in rig.trainable if w.grad is not None])

    again = (Checkpoint(layers=3),)
    assert relative_error(gradient_of((), 1.0), gradient_of(again, 1.0)) < TOLERANCE
    assert relative_error(gradient_of((), 1.5), gradient_of(again, 1.5)) > 100 * TOLERANCE


def test_every_task_is_covered() -> None:
    assert {task for _, task in CASES} | {"text"} == set(get_args(Task))  # text differs from sft only in its mask
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_packing_in_bfloat16_is_held_to_its_rounding(family: str) -> None:
    """All weights learn, in float32, while products are computed in bfloat16: the check must allow for that."""
    task: Task = "sft" if family in DECODERS else "classify"
    rig = on_rig((Pack(tokens=64),), replace(make_rig(family, task), dtype=torch.bfloat16))
    assert any(fact.startswith("pack:") for fact in rig.facts)
