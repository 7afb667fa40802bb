"""Compiled layers: the same gradients, and of the activations no more than the formula counts."""

from __future__ import annotations

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Fuse, LoRA, Pack, on_rig


def compiled(family: str, fuse: Fuse):
    rig = make_rig(family, "sft")
    torch.manual_seed(0)
    rig = on_rig((LoRA(rank=4, alpha=8.0), Pack(tokens=300)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return on_rig((fuse,), rig)


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
