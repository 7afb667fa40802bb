"""The last block without rows that bear no loss: the same gradients on every family, and less to compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.rig.chunked_loss import ChunkedLoss
from tenfold.rig.last_block import LOSS_ROWS, narrow_last_block
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig
from tenfold.workload import NARROWED_SHARE
from tiny import DECODERS, tiny_model

TOLERANCE = 2e-6
"""Relative; float32 has 1.2e-7, and the sums run in another order."""

WAYS: dict[str, tuple[Cut, ...]] = {
    "padded": (),
    "packed": (Pack(tokens=100),),
    "adapted": (LoRA(rank=4), Pack(tokens=100)),
    "dropped out": (LoRA(rank=4, dropout=1e-9), Pack(tokens=100)),  # the module's other path; it drops nothing
    "stored": (Quantize("int8"), LoRA(rank=4), Pack(tokens=100)),
}
FUSE, ALL = Fuse(loss_rows=16), Checkpoint(layers=3)


def fused(family: str, cuts: tuple[Cut, ...]) -> Rig:
    torch.manual_seed(0)
    rig = on_rig((*cuts, FUSE), make_rig(family, "sft"))
    torch.manual_seed(1)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return rig


def whole(rig: Rig) -> Rig:
    """The same rig, the last block of which computes all rows."""
    assert isinstance(rig.loss, ChunkedLoss)
    return replace(rig, loss=replace(rig.loss, narrowed=False))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", DECODERS)
def test_gives_the_same_step(family: str, way: str) -> None:
    rows = make_rows("sft")
    rig = fused(family, WAYS[way])
    assert any("skip the head and most of the last block" in fact for fact in rig.facts)
    loss, gradient = step_gradient(whole(rig), rows)
    for narrowed in (rig, on_rig((ALL,), rig)):
        found, gradient_found = step_gradient(narrowed, rows)
        assert found == pytest.approx(loss, rel=TOLERANCE)
        assert relative_error(gradient, gradient_found) < TOLERANCE


@pytest.mark.parametrize("family", DECODERS)
def test_other_rows_than_those_with_loss_are_noticed(family: str) -> None:
    """The control: the rows after those that are wanted."""
    rows = make_rows("sft")
    rig = fused(family, WAYS["packed"])
    _, gradient = step_gradient(rig, rows)
    hook = rig.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, LOSS_ROWS: (kwargs[LOSS_ROWS] + 1) % 90}), with_kwargs=True
    )
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 100 * TOLERANCE
    hook.remove()
    assert relative_error(gradient, step_gradient(rig, rows)[1]) < TOLERANCE


@pytest.mark.parametrize("family", DECODERS)
def test_computes_less(family: str) -> None:
    """As much as is left out on paper is left out for real: tests/test_job.py holds the numbers."""
    rig = fused(family, ())
    (batch,) = replace(rig, layout=replace(rig.layout, rows=8)).layout(make_rows("sft"))  # type: ignore[type-var]

    def flops(rig: Rig) -> int:
        with FlopCounterMode(display=False) as counter:
            rig.loss(rig.model, batch).backward()
        return counter.get_total_flops()

    assert flops(rig) < 0.9 * flops(whole(rig))


def test_filled_up_rows_count_nothing() -> None:
    """Steady shapes repeat a row that bears no loss until their number is round."""
    rows = make_rows("sft")
    rig = fused("llama", WAYS["packed"])
    _, gradient = step_gradient(rig, rows)
    plain: Callable = rig.layout
    assert isinstance(plain, PackedLayout)

    def filled(samples):
        for batch in plain(samples):
            idle = (batch.targets.flatten() < 0).nonzero()[-1].repeat(5)
            yield replace(batch, loss_index=torch.cat([batch.loss_index, idle]))

    again = replace(rig, layout=lambda samples: list(filled(samples)))
    assert relative_error(gradient, step_gradient(again, rows)[1]) < TOLERANCE


def test_a_padded_batch_given_to_a_packed_model() -> None:
    """What your own loop does: the rows are named by their padded places."""
    rig = fused("llama", WAYS["packed"])
    ids = torch.randint(4, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[2, 7:] = 0
    labels = torch.where(mask.bool(), ids, -100)
    labels[:, :3] = -100
    plain = make_rig("llama", "sft")
    for name, weight in rig.model.named_parameters():
        assert torch.equal(weight, plain.model.get_parameter(name))
    expected = plain.mean_loss(ids, labels, mask)
    assert rig.mean_loss(ids, labels, mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_where_nearly_all_rows_bear_loss_none_is_picked() -> None:
    rig = fused("llama", ())
    seen: list[bool] = []
    rig.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(LOSS_ROWS in kwargs), with_kwargs=True
    )
    rows = make_rows("sft", count=4)
    every = [replace(row, loss_mask=bytes([0, *[1] * (len(row.input_ids) - 1)])) for row in rows]
    even = [replace(row, input_ids=row.input_ids[:3] * 10, loss_mask=bytes([0, *[1] * 29])) for row in every]
    for batches in (rig.layout(rows), rig.layout(even)):
        for batch in batches:
            rig.loss(rig.model, batch)
    assert seen == [True, False]
    assert NARROWED_SHARE < 29 / 30


def test_the_model_stays_as_it_is_for_others() -> None:
    """Calls without the keyword, and the names of its weights."""
    model, plain = tiny_model("qwen3", "sft"), tiny_model("qwen3", "sft")
    assert narrow_last_block(model) == ""
    ids = torch.arange(10)[None]
    assert torch.equal(model.eval()(ids).logits, plain.eval()(ids).logits)
    assert list(model.state_dict()) == list(plain.state_dict())


class Mixing(torch.nn.Module):
    """A feed-forward part that looks at other rows."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden + hidden.roll(1, dims=1))


def test_a_block_that_mixes_rows_after_attention_is_left_as_it_is() -> None:
    model = tiny_model("llama", "sft")
    last = model.base_model.layers[-1]  # type: ignore[union-attr]
    last.mlp = Mixing(last.mlp)
    assert "relative difference" in narrow_last_block(model)
    assert not last._forward_pre_hooks


def test_a_block_of_another_make_is_left_as_it_is() -> None:
    model = tiny_model("llama", "sft")
    last = model.base_model.layers[-1]  # type: ignore[union-attr]
    last.other = torch.nn.Module()
    last.other.is_causal = True
    assert narrow_last_block(model) == "its last block has 2 attention layers, not one"
