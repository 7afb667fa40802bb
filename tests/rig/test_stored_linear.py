"""A stored layer computes what a plain one with the same weight computes, and keeps no dense weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from transformers.pytorch_utils import Conv1D

from tenfold.rig.storage import STORAGES, Storage
from tenfold.rig.stored_linear import StoredLinear

each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES.keys())


def make_linear(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(128, 96, bias=bias)


def run(layer: torch.nn.Module, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the gradient of the input."""
    torch.manual_seed(seed)
    x = torch.randn(3, 5, 128, requires_grad=True)
    y = layer(x)
    (y * torch.randn_like(y)).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@each_storage
@pytest.mark.parametrize("bias", [True, False])
def test_computes_what_the_plain_layer_computes(storage: Storage, bias: bool) -> None:
    linear = make_linear(bias)
    stored = StoredLinear.of(linear, storage)
    plain = make_linear(bias)
    plain.weight.data = stored.weight
    for found, expected, original in zip(run(stored), run(plain), run(linear), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(original, expected, rtol=1e-3, atol=1e-3), "the control: another weight shows"


@each_storage
@pytest.mark.filterwarnings("ignore")
def test_is_traced_whole(storage: Storage) -> None:
    torch.compiler.reset()  # the limit of recompilations counts those of other formats
    stored = StoredLinear.of(make_linear(), storage)
    compiled = torch.compile(stored, backend="aot_eager", fullgraph=True)
    for found, expected in zip(run(compiled), run(stored), strict=True):
        torch.testing.assert_close(found, expected)
    plain = torch.randn(2, 128)
    torch.testing.assert_close(compiled(plain), stored(plain))
    with torch.no_grad():
        torch.testing.assert_close(compiled(plain), stored(plain))


class Kept:
    """Bytes that autograd saves."""

    def __init__(self) -> None:
        self.bytes = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes += tensor.untyped_storage().nbytes()
        return tensor


@each_storage
def test_keeps_no_dense_weight(storage: Storage) -> None:
    linear = make_linear().requires_grad_(False)
    stored = StoredLinear.of(linear, storage)
    kept, dense = Kept(), Kept()
    x = torch.randn(1, 128, requires_grad=True)
    with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        stored(x)
    with saved_tensors_hooks(dense.pack, lambda tensor: tensor):
        linear(x)
    assert kept.bytes == sum(part.nbytes for part in stored.parts.values())
    assert dense.bytes == linear.weight.nbytes, "the control: the plain layer keeps its own"


@each_storage
def test_nothing_of_it_learns(storage: Storage) -> None:
    stored = StoredLinear.of(make_linear(), storage)
    run(stored)
    assert not any(weight.requires_grad for weight in stored.parameters())
    assert not stored.weight.requires_grad


@each_storage
def test_follows_autocast(storage: Storage) -> None:
    stored = StoredLinear.of(make_linear(), storage)
    with torch.autocast("cpu", torch.bfloat16):
        y, gradient = run(stored)
    assert (y.dtype, gradient.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.float(), run(stored)[0], rtol=0.05, atol=0.05)


@each_storage
def test_another_number_format_is_that_of_the_dense_weight_alone(storage: Storage) -> None:
    stored = StoredLinear.of(make_linear(), storage)
    before = {name: part.clone() for name, part in stored.parts.items()}
    weight = stored.weight
    stored.to(torch.bfloat16)
    assert {name: part.dtype for name, part in stored.parts.items()} == {n: p.dtype for n, p in before.items()}
    assert stored.weight.dtype == torch.bfloat16
    assert torch.equal(stored.weight, weight.bfloat16())
    assert stored.bias is not None
    assert stored.bias.dtype == torch.bfloat16


@each_storage
def test_takes_the_place_of_a_transposed_layer(storage: Storage) -> None:
    torch.manual_seed(0)
    conv = Conv1D(96, 128)
    stored = StoredLinear.of(conv, storage)
    assert (stored.in_features, stored.out_features) == (128, 96)
    again = stored.dense()
    assert isinstance(again, Conv1D)
    assert again.weight.shape == conv.weight.shape
    torch.testing.assert_close(run(again)[0], run(stored)[0])
    torch.testing.assert_close(run(stored)[0], F.linear(*_input_of(conv)), rtol=0.2, atol=0.3)


def _input_of(conv: Conv1D) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 5, 128), conv.weight.detach().T, conv.bias.detach()


@each_storage
def test_a_skeleton_takes_a_weight_later(storage: Storage) -> None:
    linear = make_linear()
    skeleton = StoredLinear.of(make_linear().to("meta"), storage)
    assert all(part.is_meta for part in skeleton.parts.values())
    skeleton.keep(linear.weight)
    expected = StoredLinear.of(linear, storage)
    assert all(torch.equal(part, expected.parts[name]) for name, part in skeleton.parts.items())


def test_becomes_the_plain_layer_again() -> None:
    stored = StoredLinear.of(make_linear(), STORAGES["int8"])
    plain = stored.dense()
    assert isinstance(plain, torch.nn.Linear)
    assert torch.equal(plain.weight, stored.weight)
    torch.testing.assert_close(run(plain)[0], run(stored)[0])
