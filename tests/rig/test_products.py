"""Products with adapters, merged: against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from rigs import relative_error
from tenfold.rig.operands import Dense, Fp8, fp8_rows, scaled_product
from tenfold.rig.products import AdaptedProduct

WIDTHS, INPUTS, RANK, SCALE = (24, 8, 8), 32, 4, 2.0


def draw(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """x, the merged weight, and A and B of each layer."""
    torch.manual_seed(0)
    x = torch.randn(10, INPUTS, dtype=dtype, requires_grad=True)
    weight = torch.randn(sum(WIDTHS), INPUTS, dtype=dtype)
    down = [torch.randn(RANK, INPUTS, dtype=dtype, requires_grad=True) for _ in WIDTHS]
    up = [torch.randn(width, RANK, dtype=dtype, requires_grad=True) for width in WIDTHS]
    return x, weight, [*down, *up]


def written_out(x: torch.Tensor, weight: torch.Tensor, adapters: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each layer on its own, gradients by autograd."""
    down, up = adapters[: len(WIDTHS)], adapters[len(WIDTHS) :]
    return [
        x @ w.T + SCALE * (x @ a.T) @ b.T for w, a, b in zip(weight.split(list(WIDTHS)), down, up, strict=True)
    ]  # fmt: skip


def gradients(outputs: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of a loss in which every output counts differently."""
    loss = sum((number + 1) * (output / 8).sin().sum() for number, output in enumerate(outputs))
    assert isinstance(loss, torch.Tensor)
    return list(torch.autograd.grad(loss, wanted))


def test_outputs_and_gradients_are_those_of_separate_layers() -> None:
    x, weight, adapters = draw(torch.float32)
    outputs = AdaptedProduct.apply(x, Dense(), 1, SCALE, weight, *adapters)
    expected = written_out(x, weight, adapters)
    for found, wanted in zip(outputs, expected, strict=True):
        assert relative_error(wanted, found) < 1e-6
    for found, wanted in zip(
        gradients(list(outputs), [x, *adapters]), gradients(expected, [x, *adapters]), strict=True
    ):
        assert relative_error(wanted, found) < 1e-4


def test_a_scale_left_out_is_noticed() -> None:
    x, weight, adapters = draw(torch.float32)
    outputs = AdaptedProduct.apply(x, Dense(), 1, 1.0, weight, *adapters)
    for found, wanted in zip(outputs, written_out(x, weight, adapters), strict=True):
        assert relative_error(wanted, found) > 0.1


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    x, weight, adapters = draw(torch.float32)
    calls: list[int] = []

    class Watched(Dense):
        def input_gradient(self, dys, parts):
            calls.append(len(dys))
            return super().input_gradient(dys, parts)

    gradients(list(AdaptedProduct.apply(x.detach(), Watched(), 1, SCALE, weight, *adapters)), adapters)
    assert calls == []
    gradients(list(AdaptedProduct.apply(x, Watched(), 1, SCALE, weight, *adapters)), [x])
    assert calls == [3]


def fp8_parts(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, scale = fp8_rows(weight)
    return values, scale[:, 0]


@pytest.mark.parametrize("turned", [False, True])
def test_fp8_is_within_its_rounding_and_not_exact(turned: bool) -> None:
    """Three bits of mantissa round by 2**-4 at most, some 2.6 % in the mean square, on either side of a product."""
    x, weight, adapters = draw(torch.float32)
    parts = fp8_parts(weight)
    if turned:
        parts = (*parts, parts[0].t().contiguous())
    outputs = list(AdaptedProduct.apply(x, Fp8(), len(parts), SCALE, *parts, *adapters))
    expected = written_out(x, weight, adapters)
    for found, wanted in zip(outputs, expected, strict=True):
        assert 1e-4 < relative_error(wanted, found) < 0.05
    (found,), (wanted,) = gradients(outputs, [x]), gradients(expected, [x])
    assert 1e-4 < relative_error(wanted, found) < 0.15


def test_fp8_rows_keep_zeros_and_the_largest_value() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-3, -2e-3], [448.0, 1.0]])
    values, scale = fp8_rows(x)
    restored = values.float() * scale
    assert torch.equal(restored[0], torch.zeros(2))
    assert torch.allclose(restored[:, :].abs().amax(1), x.abs().amax(1))


def test_a_scaled_product_multiplies_both_scales() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 16), torch.randn(8, 16)
    (narrow, x_scale), (values, scale) = fp8_rows(x), fp8_rows(weight)
    found = scaled_product(narrow, x_scale, values, scale[:, 0])
    assert relative_error((narrow.float() * x_scale) @ (values.float() * scale).T, found) < 1e-6
    assert relative_error(x @ weight.T, scaled_product(narrow, x_scale, values, torch.ones(8))) > 0.5
