"""Gated MLPs as one function: against the layers that they take the place of."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import LoRA, Quantize, on_rig
from tenfold.rig.gated import GatedMlp, fuse_gated
from tenfold.rig.gated_passes import TILE, activate, gated_backward, gated_forward, round_and_project
from tenfold.rig.merging import merge_products
from tenfold.rig.operands import fp8_rows
from tenfold.rig.rig import Rig
from tiny import DECODERS

GATED = ("llama", "qwen2", "qwen3", "mistral", "gemma3")


def merged(family: str, storage: Literal["fp8", "int8", "nf4"] | None = None, compute: str = "bf16") -> Rig:
    """A tiny model with merged products and adapters that already do something."""
    rig = make_rig(family, "sft")
    torch.manual_seed(0)
    quantize = () if storage is None else (Quantize(storage),)
    rig = on_rig((*quantize, LoRA(rank=4, alpha=8.0)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    rig = replace(rig, frozen_compute=compute)  # type: ignore[arg-type]
    merge_products(rig)
    return rig


@pytest.mark.parametrize("family", GATED)
def test_gated_mlps_give_the_same_losses_and_gradients(family: str) -> None:
    rig, rows = merged(family), make_rows("sft")
    names = [name for name, _ in rig.trainable]
    loss, gradient = step_gradient(rig, rows)
    assert fuse_gated(rig) == 3
    assert [name for name, _ in rig.trainable] == names
    fused_loss, fused_gradient = step_gradient(rig, rows)
    assert fused_loss == pytest.approx(loss, abs=1e-5)
    assert relative_error(gradient, fused_gradient) < 1e-5


def test_an_adapter_in_the_wrong_place_is_noticed() -> None:
    """The control: the adapters of gate and up exchanged."""
    rig, rows = merged("llama"), make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    fuse_gated(rig)
    mlp = next(module for module in rig.model.modules() if isinstance(module, GatedMlp))
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-2


@pytest.mark.parametrize("family", [family for family in DECODERS if family not in GATED])
def test_other_mlps_stay_as_they_are(family: str) -> None:
    assert fuse_gated(merged(family)) == 0


def test_an_mlp_that_does_more_than_its_projections_stays_as_it_is() -> None:
    rig = merged("llama")
    mlp = rig.model.get_submodule("model.layers.0.mlp")
    plain = mlp.forward
    mlp.forward = lambda x: 2 * plain(x)  # type: ignore[method-assign]
    _, gradient = step_gradient(rig, make_rows("sft"))
    assert fuse_gated(rig) == 0
    assert torch.equal(gradient, step_gradient(rig, make_rows("sft"))[1])


@pytest.mark.parametrize("storage", ["fp8", "nf4"])
def test_fp8_products_in_gated_mlps_round_as_those_of_the_layers(storage: Literal["fp8", "nf4"]) -> None:
    rig, rows = merged("llama", storage, "fp8"), make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    assert fuse_gated(rig) == 3
    assert relative_error(gradient, step_gradient(rig, rows)[1]) < 0.05


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_slopes_are_those_of_autograd(activation: str) -> None:
    x = torch.linspace(-6, 6, 101, requires_grad=True)
    plain = torch.nn.functional.silu(x) if activation == "silu" else torch.nn.functional.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(plain.sum(), x)
    act, found = activate(x.detach(), activation)
    assert torch.allclose(plain, act, atol=1e-5)
    assert torch.allclose(slope, found, atol=1e-5)


def draw(rows: int = 10, width: int = TILE + 72, rank: int = 4) -> dict[str, torch.Tensor]:
    """Operands of one MLP, gate and up as views of one product."""
    torch.manual_seed(0)
    gate, up = torch.randn(rows, 2 * width).chunk(2, dim=1)
    thin, gate_b, up_b = torch.randn(rows, 2 * rank), torch.randn(width, rank), torch.randn(width, rank)
    return {"gate": gate, "up": up, "thin": thin, "gate_b": gate_b, "up_b": up_b}


def test_backward_gives_the_gradients_of_forward() -> None:
    values = draw()
    rows, width = values["gate"].shape
    dh, thin_dh, down_a = torch.randn(rows, width), torch.randn(rows, 4), torch.randn(4, width)
    gate, up, gate_b, up_b = (values[name].clone().requires_grad_() for name in ("gate", "up", "gate_b", "up_b"))
    wide = gate + values["thin"][:, :4] @ gate_b.T
    h = torch.nn.functional.silu(wide) * (up + values["thin"][:, 4:] @ up_b.T)
    found_h, _ = gated_forward(**values, activation="silu")
    assert relative_error(h, found_h) < 1e-5
    expected = torch.autograd.grad(h, [gate, up, gate_b, up_b], dh + thin_dh @ down_a)
    both, peaks, products = gated_backward(dh, **values, thin_dh=thin_dh, down_a=down_a, scales=None, activation="silu")
    found = [*both.chunk(2, dim=1), products[1].T, products[2].T]
    assert all(relative_error(wanted, value) < 1e-5 for wanted, value in zip(expected, found, strict=True))
    assert relative_error(thin_dh.T @ h, products[0]) < 1e-5
    assert torch.allclose(peaks.amax(1), both.abs().amax(1))


@pytest.mark.parametrize("scaled", [False, True])
def test_rounding_and_projecting_are_one_reading_of_two_things(scaled: bool) -> None:
    x, a = torch.randn(6, TILE + 8), torch.randn(4, TILE + 8)
    scales = torch.rand(TILE + 8) + 0.5 if scaled else None
    wide = x if scales is None else x * scales
    peaks = torch.stack([part.abs().amax(1) for part in wide.split(TILE, dim=1)], dim=1)
    narrow, scale, thin = round_and_project(x, peaks, scales, a)
    expected, expected_scale = fp8_rows(wide)
    assert torch.equal(narrow.float(), expected.float())
    assert torch.equal(scale, expected_scale)
    assert torch.allclose(thin, x @ a.T)
