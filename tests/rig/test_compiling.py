"""Compiled layers: the same gradients, and of the activations no more than the formula counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from rigs import COMPILES, make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.rig.rig import Rig
from tenfold.rig.stored_linear import StoredLinear

Storage = Literal["fp8", "int8", "nf4"]
Compute = Literal["bf16", "fp8"]

pytestmark = pytest.mark.skipif(not COMPILES, reason="this torch does not compile packed rows, or finds no compiler")

SHORT = make_rows("sft", count=1, longest=6)


def compiled(family: str, fuse: Fuse, storage: Storage | None = None, compute: Compute = "bf16") -> Rig:
    rig = make_rig(family, "sft")
    torch.manual_seed(0)
    quantize = () if storage is None else (Quantize(storage),)
    rig = on_rig((*quantize, LoRA(rank=4, alpha=8.0), Pack(tokens=300)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return on_rig((fuse,), replace(rig, frozen_compute=compute))


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_compiled_layers_give_the_same_gradients(family: str) -> None:
    rows = make_rows("sft")
    _, gradient = step_gradient(compiled(family, Fuse(loss_rows=300)), rows)
    rig = compiled(family, Fuse(loss_rows=300, compile=True))
    assert any("3 layers compiled, 21 adapted products merged into 12" in fact for fact in rig.facts)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) < 1e-4
    with torch.no_grad():
        next(weight for name, weight in rig.trainable if "lora_B" in name).mul_(1.1)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-3


def kept_sizes(rig: Rig) -> list[int]:
    """Elements of all numbers that the forward pass of one short row keeps beside the model's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in rig.model.state_dict().values()}
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in own:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for batch in rig.layout(SHORT):
            rig.loss(rig.model, batch)
    return sizes


@pytest.mark.parametrize("compute", ["bf16", "fp8"])
@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_no_dense_weight_is_kept_for_the_backward_pass(storage: Storage, compute: Compute) -> None:
    rig = compiled("llama", Fuse(loss_rows=300, compile=True), storage, compute)
    largest = max(m.out_features * m.in_features for m in rig.model.modules() if isinstance(m, StoredLinear))
    sizes = kept_sizes(rig)
    tokens = len(SHORT[0].input_ids)
    widest = 2 * rig.model.config.intermediate_size
    assert max(sizes) <= tokens * widest
    assert largest > 2 * tokens * widest  # the control: a dense weight would not go unseen
