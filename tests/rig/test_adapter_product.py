"""The adapter's product against the same sum left to autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rigs import relative_error
from tenfold.rig.adapter_product import adapter_product

SCALE = 1.7


def inputs(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 12, dtype=dtype), torch.randn(9, 12, dtype=dtype)
    down, up = torch.randn(3, 12, dtype=dtype), torch.randn(9, 3, dtype=dtype)
    return x, weight, torch.randn(9, dtype=dtype) if bias else None, down, up  # type: ignore[return-value]


def plain(x, weight, bias, down, up, scale):
    return F.linear(x, weight, bias) + scale * F.linear(F.linear(x, down), up)


def gradients(product, bias: bool, scale: float = SCALE) -> list[torch.Tensor]:
    x, weight, shift, down, up = inputs(bias)
    learning = [value.requires_grad_() for value in (x, down, up)]
    y = product(x, weight, shift, down, up, scale)
    return [y.detach(), *torch.autograd.grad((y * y).sum(), learning)]


@pytest.mark.parametrize("bias", [True, False])
def test_equals_what_autograd_makes(bias: bool) -> None:
    for expected, found in zip(gradients(plain, bias), gradients(adapter_product, bias), strict=True):
        assert found.shape == expected.shape
        assert relative_error(expected, found) < 1e-14


def test_another_scale_is_noticed() -> None:
    for expected, found in zip(gradients(plain, True), gradients(adapter_product, True, SCALE + 0.01), strict=True):
        assert relative_error(expected, found) > 1e-4


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    x, weight, bias, down, up = inputs(bias=True)
    adapter_product(x, weight, bias, down.requires_grad_(), up.requires_grad_(), SCALE).sum().backward()
    assert x.grad is None
    assert down.grad is not None
    assert up.grad is not None


def test_adapters_may_be_wider_than_what_is_frozen() -> None:
    x, weight, bias, down, up = inputs(bias=True, dtype=torch.float32)
    expected = plain(x, weight, bias, down, up, SCALE)
    narrow = (value.bfloat16() for value in (x, weight, bias))
    y = adapter_product(*narrow, down.requires_grad_(), up.requires_grad_(), SCALE)
    assert y.dtype == torch.bfloat16
    assert relative_error(expected, y.detach().float()) < 0.02
    y.float().sum().backward()
    assert down.grad is not None
    assert down.grad.dtype == torch.float32
