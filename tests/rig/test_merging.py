"""Merged products: which layers share an input, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import LoRA, Quantize, on_rig
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


def adapted(family: str, dropout: float = 0.0, storage: Literal["fp8", "int8", "nf4"] | None = None) -> Rig:
    """A tiny model with adapters that already do something."""
    rig = make_rig(family, "sft" if family in DECODERS else "classify")
    torch.manual_seed(0)
    quantize = () if storage is None else (Quantize(storage),)
    rig = on_rig((*quantize, LoRA(rank=4, alpha=8.0, dropout=dropout)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return rig


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_merged_products_give_the_same_losses_and_gradients(family: str) -> None:
    rig = adapted(family)
    rows = make_rows(rig.task)
    loss, gradient = step_gradient(rig, rows)
    sizes = merge_products(rig)
    assert sizes[: len(GROUPS[family])] == GROUPS[family]
    merged_loss, merged_gradient = step_gradient(rig, rows)
    assert merged_loss == pytest.approx(loss, abs=1e-5)
    assert relative_error(gradient, merged_gradient) < 1e-5


def test_an_adapter_in_the_wrong_place_is_noticed() -> None:
    """The control: two members of a group exchanged."""
    rig = adapted("llama")
    rows = make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    merge_products(rig)
    group = next(m.group for m in rig.model.modules() if isinstance(m, AdaptedLinear) and len(m.group.members) == 2)
    group.parts = (torch.cat(group.parts[0].chunk(2)[::-1]),)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-2


def test_names_and_weights_stay_what_they_were() -> None:
    rig = adapted("llama")
    before = {name: weight.clone() for name, weight in rig.model.state_dict().items()}
    merge_products(rig)
    after = rig.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_with_adapter_dropout_stay_apart() -> None:
    assert merge_products(adapted("llama", dropout=0.1)) == []


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
def test_merged_products_of_stored_weights_are_the_same(storage: Literal["fp8", "int8", "nf4"], kept: bool) -> None:
    rig = adapted("llama", storage=storage)
    rows = make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    assert merge_products(replace(rig, frozen_kept=kept))[:4] == [3, 1, 2, 1]
    assert relative_error(gradient, step_gradient(rig, rows)[1]) < 1e-5


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
def test_fp8_products_of_stored_weights_round_and_no_more(storage: Literal["fp8", "int8", "nf4"], kept: bool) -> None:
    rig = adapted("llama", storage=storage)
    rows = make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    merge_products(replace(rig, frozen_compute="fp8", frozen_kept=kept))
    assert 1e-3 < relative_error(gradient, step_gradient(rig, rows)[1]) < 0.15
