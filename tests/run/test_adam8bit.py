"""Moments in eight bits learn as float32 moments do. Each check has one that must fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from rigs import make_rows, step_gradient
from tenfold.recipe import TrainWish
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.loss import next_token_loss
from tenfold.rig.rig import Rig, Source
from tenfold.run import adam8bit
from tenfold.run.adam8bit import SMALL, Adam8bit
from tenfold.run.levels8bit import BLOCK, Levels, dequantize, quantize
from tenfold.run.optimizer import make_optimizer

CPU = torch.device("cpu")


def normal_blocks(count: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, BLOCK, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_256_from_small_to_one(signed: bool) -> None:
    values = Levels.dynamic(signed, CPU).values
    assert len(values) == 256
    assert torch.equal(values, values.sort().values)
    assert values.unique().numel() == 256
    assert (float(values.min()) < 0) == signed
    assert values.max() == 1
    assert values.abs()[values != 0].min() < 1e-6


@pytest.mark.parametrize("signed", [True, False])
def test_a_value_comes_back_as_its_nearest_level(signed: bool) -> None:
    blocks = normal_blocks() if signed else normal_blocks().square()
    levels = Levels.dynamic(signed, CPU)
    found = dequantize(*quantize(blocks, levels), levels)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    distances = ((blocks / scales)[..., None] - levels.values).abs()
    assert (found / scales - blocks / scales).abs().sub(distances.amin(dim=2)).max() < 1e-6
    assert float((found - blocks).norm() / blocks.norm()) < 0.02
    wrong = dequantize(*quantize(blocks, levels), Levels.dynamic(not signed, CPU))
    assert float((wrong - blocks).norm() / blocks.norm()) > 0.2, "the control: other levels are far off"


def test_what_divides_never_becomes_zero() -> None:
    blocks = torch.full((1, BLOCK), 1e-12)
    blocks[0, 0], blocks[0, 1] = 1.0, 0.0
    levels = Levels.dynamic(False, CPU)
    found = dequantize(*quantize(blocks, levels), levels)
    assert found[0, 1] == 0
    assert bool((found[0, 2:] > 0).all())


def make_rig() -> Rig:
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=300, pad_token_id=0, **sizes)
    model = transformers.LlamaForCausalLM(config)
    return Rig(model, "sft", Source("tiny"), CPU, PaddedLayout(8, 0), next_token_loss)


STEPS = 50
TOLERANCE = 0.02
"""Relative, of the loss after 50 steps: it is some tenths of what it was at first."""


def losses(kind: str) -> list[float]:
    """The loss of the same eight rows, step by step."""
    rig, rows = make_rig(), make_rows("sft")
    optimizer = make_optimizer(rig, TrainWish(optimizer=kind, weight_decay=0.01))  # type: ignore[arg-type]
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    found: list[float] = []
    for _ in range(STEPS):
        found.append(step_gradient(rig, rows)[0])
        optimizer.step()
    return found


def test_learns_as_adamw_does() -> None:
    expected, found = losses("adamw"), losses("adamw_8bit")
    assert expected[-1] < 0.5 * expected[0]
    assert found == pytest.approx(expected, rel=TOLERANCE)


def test_scales_of_blocks_of_another_size_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: moments read back as if a scale stood for 512 values are another optimizer."""
    expected = losses("adamw")

    def read_wrongly(codes: torch.Tensor, scales: torch.Tensor, levels: Levels) -> torch.Tensor:
        return dequantize(codes, scales[::2].repeat_interleave(2)[: len(scales)], levels)

    monkeypatch.setattr(adam8bit, "dequantize", read_wrongly)
    found = losses("adamw_8bit")
    assert found != pytest.approx(expected, rel=TOLERANCE)


def test_small_tensors_are_updated_exactly_as_by_adamw() -> None:
    torch.manual_seed(0)
    start, slopes = torch.randn(40, 100), [torch.randn(40, 100) for _ in range(5)]
    results: list[torch.Tensor] = []
    settings: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
    for kind in (torch.optim.AdamW, Adam8bit):
        weight = torch.nn.Parameter(start.clone())
        assert weight.numel() < SMALL
        optimizer = kind([{"params": [weight], "weight_decay": 0.1}], **settings)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        for slope in slopes:
            weight.grad = slope.clone()
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def make_one(size: int, seed: int = 0) -> tuple[torch.nn.Parameter, Adam8bit]:
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(size))
    return weight, Adam8bit([{"params": [weight], "lr": 1e-2}], (0.9, 0.999), 1e-8)


def test_takes_the_bytes_it_says_and_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, optimizer = make_one(256 * 1000)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    held = sum(part.nbytes for part in optimizer.state[weight].values()) - 4
    assert held == 2 * (1 + 4 / 256) * weight.numel()

    whole, optimizer = make_one(10_001)
    whole.grad = torch.randn(10_001, generator=torch.Generator().manual_seed(3))
    optimizer.step()
    monkeypatch.setattr(adam8bit, "AT_ONCE", 1024)
    pieces, optimizer = make_one(10_001)
    pieces.grad = whole.grad.clone()
    optimizer.step()
    assert torch.equal(whole, pieces), "how much is done at once changes nothing"


def test_continues_bit_for_bit() -> None:
    slopes = [torch.randn(8192, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    weight, optimizer = make_one(8192)
    for slope in slopes:
        weight.grad = slope
        optimizer.step()
    again, first = make_one(8192)
    for slope in slopes[:3]:
        again.grad = slope
        first.step()
    _, second = make_one(8192)
    second.param_groups[0]["params"] = [again]
    second.load_state_dict({**first.state_dict()})
    assert {name: part.dtype for name, part in second.state[again].items()} == {
        name: part.dtype for name, part in first.state[again].items()
    }
    for slope in slopes[3:]:
        again.grad = slope
        second.step()
    assert torch.equal(weight, again)
