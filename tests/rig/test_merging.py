"""Merged products: which layers share an input, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import LoRA, on_rig
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.merging import merge_products
from tenfold.rig.rig import Rig
from tiny import DECODERS, ENCODERS

GROUPS = {
    "llama": [3, 1, 2, 1], "qwen2": [3, 1, 2, 1], "qwen3": [3, 1, 2, 1], "mistral": [3, 1, 2, 1],
    "gemma3": [3, 1, 2, 1], "phi3": [1, 1, 1, 1], "gpt2": [], "bert": [3, 1, 1, 1], "roberta": [3, 1, 1, 1],
    "distilbert": [3, 1, 1, 1], "modernbert": [1, 1, 1, 1],
}  # fmt: skip
"""What the layers of one block fall into. GPT-2 keeps its weights transposed."""


def adapted(family: str, dropout: float = 0.0) -> Rig:
    """A tiny model with adapters that already do something."""
    rig = make_rig(family, "sft" if family in DECODERS else "classify")
    torch.manual_seed(0)
    rig = on_rig((LoRA(rank=4, alpha=8.0, dropout=dropout),), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return rig


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_merged_products_give_the_same_losses_and_gradients(family: str) -> None:
    rig = adapted(family)
    rows = make_rows(rig.task)
    loss, gradient = step_gradient(rig, rows)
    sizes = merge_products(rig.model)
    assert sizes[: len(GROUPS[family])] == GROUPS[family]
    merged_loss, merged_gradient = step_gradient(rig, rows)
    assert merged_loss == pytest.approx(loss, abs=1e-5)
    assert relative_error(gradient, merged_gradient) < 1e-5


def test_an_adapter_in_the_wrong_place_is_noticed() -> None:
    """The control: two members of a group exchanged."""
    rig = adapted("llama")
    rows = make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    merge_products(rig.model)
    group = next(m.group for m in rig.model.modules() if isinstance(m, AdaptedLinear) and len(m.group.members) == 2)
    group.parts = (torch.cat(group.parts[0].chunk(2)[::-1]),)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-2


def test_names_and_weights_stay_what_they_were() -> None:
    rig = adapted("llama")
    before = {name: weight.clone() for name, weight in rig.model.state_dict().items()}
    merge_products(rig.model)
    after = rig.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_with_adapter_dropout_stay_apart() -> None:
    assert merge_products(adapted("llama", dropout=0.1).model) == []
