"""Weights of 16 + 8 bits learn as float32 masters do. Each check has one that must fail."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from test_adam8bit import make_rig
from torch._dynamo.utils import counters

from rigs import make_rows
from tenfold.errors import InputError
from tenfold.recipe import TrainWish
from tenfold.rig.precision import autocast
from tenfold.run import adam8bit
from tenfold.run.adam8bit import SMALL, Adam8bit
from tenfold.run.levels8bit import BLOCK, Levels, codes_by_decade
from tenfold.run.optimizer import make_optimizer
from tenfold.run.split_master import join, phase_of, split, thresholds
from updates import largest_difference, updated_masters

CPU = torch.device("cpu")
LAST_PLACE = 2.0**-15
"""Of 16 bits of precision, relative to the power of two below a number."""


def numbers(count: int = 20_000) -> torch.Tensor:
    """Of all sizes and both signs."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=draw) * 10 ** (8 * torch.rand(count, generator=draw) - 6)


def test_a_split_master_is_its_number_to_16_bits() -> None:
    masters = numbers()
    weight, low = split(masters)
    assert (weight.dtype, low.dtype) == (torch.bfloat16, torch.int8)
    assert ((join(weight, low) - masters).abs() <= LAST_PLACE / 2 * masters.abs()).all()
    assert ((weight.float() - masters).abs() > 16 * LAST_PLACE * masters.abs()).any(), "the control: without low bits"
    again = split(join(weight, low))
    assert torch.equal(again[0], weight)
    assert torch.equal(again[1], low), "what has 16 bits is kept as it is"


def test_the_weight_is_the_nearest_bfloat16() -> None:
    masters = join(*split(numbers()))
    distance = (split(masters)[0].float() - masters).abs()
    assert torch.equal(distance, (masters.bfloat16().float() - masters).abs())
    cut_off = (masters.view(torch.int32) & -65536).view(torch.float32)
    assert (distance < (cut_off - masters).abs()).any(), "the control: bits that are only left out"


def test_what_is_no_number_stays_none() -> None:
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan")])
    found = join(*split(special, thresholds(5, phase_of(3, 0), CPU)))
    assert torch.equal(found[:4], special[:4])
    assert torch.isnan(found[4])


def test_roundings_are_even_over_steps_and_over_places() -> None:
    of_a_place = torch.stack([thresholds(8, phase_of(step, 0), CPU) for step in range(256)])[:, 5]
    of_a_step = thresholds(256, phase_of(7, 0), CPU)
    for found in (of_a_place, of_a_step):
        shares = torch.histc(found.float(), bins=16, min=0, max=256)
        assert (shares - 16).abs().max() <= 2
    assert torch.equal(thresholds(9, phase_of(7, 1000), CPU), thresholds(1009, phase_of(7, 0), CPU)[1000:])
    random = torch.randint(0, 256, (256,), generator=torch.Generator().manual_seed(0))
    assert (torch.histc(random.float(), bins=16, min=0, max=256) - 16).abs().max() > 2, (
        "the control: by chance it is not"
    )


STEPS, RATE, SIZE = 200, 1e-6, 8192


def trained(splits: bool) -> torch.Tensor:
    """How far float32 masters near 1 have moved by steps of a 15th of the last of their 16 bits."""
    start = 1 + 0.5 * torch.rand(SIZE, generator=torch.Generator().manual_seed(1))
    weight = torch.nn.Parameter(join(*split(start)))
    before = weight.detach().clone()
    optimizer = Adam8bit([{"params": [weight], "lr": RATE}], (0.9, 0.999), 1e-8)
    if splits:
        optimizer.split(weight)
    draw = torch.Generator().manual_seed(2)
    direction = torch.randn(SIZE, generator=draw)
    for _ in range(STEPS):
        weight.grad = (direction + 0.3 * torch.randn(SIZE, generator=draw)).bfloat16().to(weight.dtype)
        optimizer.step()
    return (join(weight.detach(), optimizer.state[weight]["low"]) if splits else weight.detach()) - before


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_small_updates_add_up_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(False)
    assert float(expected.abs().mean()) > 4 * LAST_PLACE
    difference = trained(True) - expected
    assert rms(difference) < LAST_PLACE, "one rounding, not one for each step"
    assert abs(float(difference.mean())) < 0.02 * LAST_PLACE, "and to neither side"

    draw = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        adam8bit, "thresholds", lambda count, phase, device: torch.randint(256, (count,), generator=draw).int()
    )
    assert rms(trained(True) - expected) > 2 * LAST_PLACE, "the control: roundings by chance"
    monkeypatch.setattr(adam8bit, "thresholds", lambda count, phase, device: torch.full((count,), 128).int())
    assert not trained(True).any(), "and another: rounded to nearest, no update arrives"


def test_bfloat16_alone_would_swallow_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the low bits: a hundred times the rate, and what moves moves far too far or not at all."""
    monkeypatch.setattr("test_split_master.RATE", 1e-4)
    expected, found = trained(False), trained(True)
    assert float((found - expected).norm() / expected.norm()) < 0.01
    monkeypatch.setattr(adam8bit, "join", lambda weight, low: weight.float())
    alone = trained(True)
    assert float((alone - expected).norm() / expected.norm()) > 0.1


def test_continues_bit_for_bit() -> None:
    slopes = [torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in range(6)]

    def make() -> tuple[torch.nn.Parameter, Adam8bit]:
        weight = torch.nn.Parameter(torch.randn(SIZE, generator=torch.Generator().manual_seed(9)))
        optimizer = Adam8bit([{"params": [weight], "lr": 1e-4, "weight_decay": 0.1}], (0.9, 0.999), 1e-8)
        optimizer.split(weight)
        return weight, optimizer

    whole, optimizer = make()
    for slope in slopes:
        whole.grad = slope
        optimizer.step()
    first, saving = make()
    for slope in slopes[:3]:
        first.grad = slope
        saving.step()
    second, restored = make()
    second.data.copy_(first.data)
    restored.load_state_dict(saving.state_dict())
    for slope in slopes[3:]:
        second.grad = slope
        restored.step()
    low = [each.state[weight]["low"] for each, weight in ((optimizer, whole), (restored, second))]
    assert torch.equal(whole, second)
    assert torch.equal(*low)
    assert not torch.equal(whole, first), "the control: the latter three steps count"


@pytest.mark.parametrize("signed", [True, False])
def test_a_level_is_computed_as_it_is_sought(signed: bool) -> None:
    levels = Levels.dynamic(signed, CPU)
    unit = torch.linspace(-1 if signed else 0, 1, 400_001)
    unit = torch.cat([unit, unit**3, 1e-6 * unit, levels.values])
    sought = torch.bucketize(unit, levels.between)
    found = codes_by_decade(unit, signed)
    apart = ((levels.values[found] - unit).abs() - (levels.values[sought] - unit).abs()).abs()
    assert float(apart.max()) < 1e-7, "the level is as near"
    assert float((found != sought).float().mean()) < 1e-4
    assert (codes_by_decade(unit, not signed) != sought).float().mean() > 0.5, "the control"


def test_one_compilation_serves_all_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a compiler that writes no code; tests/test_gpu.py has the real one."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    found = updated_masters(compiled=True)
    assert counters["stats"]["unique_graphs"] == 1
    expected = updated_masters(compiled=False)
    assert largest_difference(found, expected) < 1e-4
    other = updated_masters(compiled=False, rate=1.02e-3)
    assert largest_difference(other, expected) > 1e-4, "the control: two hundredths of the rate more"


def losses(optimizer_name: str, low: bool = True) -> list[float]:
    """Of the same eight rows, step by step, computed in bfloat16; without low bits, if asked."""
    rig, rows = replace(make_rig(), dtype=torch.bfloat16), make_rows("sft")
    optimizer = make_optimizer(rig, TrainWish(optimizer=optimizer_name))  # type: ignore[arg-type]
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    found: list[float] = []
    for _ in range(25):
        optimizer.zero_grad(set_to_none=True)
        (batch,) = rig.layout(rows)
        with autocast(CPU, torch.bfloat16):
            loss = rig.loss(rig.model, batch) / batch.loss_count
        loss.backward()
        optimizer.step()
        for state in optimizer.state.values() if not low else ():
            if "low" in state:
                state["low"].zero_()
        found.append(loss.item())
    return found


def test_learns_as_float32_masters_do() -> None:
    expected = losses("adamw")
    change = expected[0] - expected[-1]
    assert change > 0.3
    assert losses("adamw_8bit_split")[-1] == pytest.approx(expected[-1], abs=0.02 * change)
    assert losses("adamw_8bit_split", low=False)[-1] != pytest.approx(expected[-1], abs=0.02 * change), "the control"


def test_matrices_take_three_bytes_and_the_rest_stays_float32() -> None:
    rig = make_rig()
    with pytest.raises(InputError, match="this run computes in float32; write adamw_8bit"):
        make_optimizer(rig, TrainWish(optimizer="adamw_8bit_split"))
    rig = replace(rig, dtype=torch.bfloat16)
    optimizer = make_optimizer(rig, TrainWish(optimizer="adamw_8bit_split"))
    for name, weight in rig.trainable:
        splits = weight.ndim >= 2 and weight.numel() >= SMALL
        assert weight.dtype == (torch.bfloat16 if splits else torch.float32), name
        if splits:
            state = optimizer.state[weight]
            assert state["low"].nbytes + weight.nbytes == 3 * weight.numel()
            moments = sum(state[part].nbytes for part in ("mean", "mean_scale", "square", "square_scale"))
            assert moments == 2 * (BLOCK + 4) * -(-weight.numel() // BLOCK)
