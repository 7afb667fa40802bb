"""Blocks come from where they are said to come, and grown ones change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rigs import make_rig
from tenfold.cuts import LoRA, WarmStart
from tenfold.errors import InputError
from tenfold.rig.rig import Rig
from tenfold.rig.warm.layers import Block, order_of_blocks
from tiny import FAMILIES, tiny_folder

TEXT = torch.tensor([[5, 7, 20, 33, 8, 21], [7, 6, 150, 4, 11, 20]])
PRE_NORM = [family for family in FAMILIES if family not in ("bert", "roberta", "distilbert")]


def rig_of(family: str) -> Rig:
    return make_rig(family, "sft" if family not in ("bert", "roberta", "distilbert", "modernbert") else "classify")


def logits(rig: Rig) -> torch.Tensor:
    with torch.no_grad():
        return rig.model.eval()(input_ids=TEXT, attention_mask=torch.ones_like(TEXT)).logits


@pytest.mark.parametrize("family", PRE_NORM)
def test_a_grown_model_computes_what_the_small_one_did(family: str) -> None:
    expected = logits(rig_of(family))
    grown = WarmStart(grow_layers=2).apply(rig_of(family))
    torch.testing.assert_close(logits(grown), expected, rtol=1e-5, atol=1e-5)
    assert grown.model.config.num_hidden_layers == 5
    assert len(grown.new_modules) == 2 + (family == "modernbert") * len(rig_of(family).new_modules)
    block = grown.model.get_submodule(grown.new_modules[-1])
    with torch.no_grad():
        for weight in block.parameters():
            weight += torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight)
    assert not torch.allclose(logits(grown), expected, atol=1e-3), "the control: new blocks are computed with"


def test_new_blocks_learn_in_full_beside_adapters() -> None:
    rig = LoRA(rank=2).apply(WarmStart(grow_layers=1).apply(rig_of("llama")))
    (name,) = rig.new_modules
    for path, weight in rig.model.named_parameters():
        inside = path.startswith(f"{name}.")
        assert weight.requires_grad == (inside or "lora_" in path), path


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_blocks_with_norms_behind_their_sums_cannot_grow(family: str) -> None:
    with pytest.raises(InputError, match="normalises behind its sums"):
        WarmStart(grow_layers=1).apply(rig_of(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_blocks_are_those_of_the_larger_model(family: str) -> None:
    whole, small = rig_of(family), WarmStart(keep_layers=(0, 2)).apply(rig_of(family))
    assert small.model.config.num_hidden_layers == 2
    names = [name for name, _ in whole.model.named_parameters() if ".0." in name or ".2." in name]
    ours, theirs = dict(small.model.named_parameters()), dict(whole.model.named_parameters())
    assert names
    for name in names:
        assert torch.equal(ours[name.replace(".2.", ".1.")], theirs[name])
    logits(small)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_strongest_neurons_are_kept(family: str) -> None:
    """With half of the neurons silent, the other half is the whole model."""
    rig = rig_of(family)
    width = silence_neurons(rig, family)
    expected = logits(rig)
    narrow = WarmStart(intermediate_size=width).apply(rig)
    torch.testing.assert_close(logits(narrow), expected, rtol=1e-4, atol=1e-4)
    assert narrow.model.num_parameters() < make_rig(family, rig.task).model.num_parameters()
    weak = WarmStart(intermediate_size=width // 2).apply(narrow)
    assert not torch.allclose(logits(weak), expected, atol=1e-3), "the control: half of the loud ones is not enough"


def silence_neurons(rig: Rig, family: str) -> int:
    """Every other neuron of each feed-forward part writes nothing; how many are left."""
    from tenfold.shape.families import FAMILIES as SHAPES

    kind = SHAPES[str(rig.model.config.model_type)]
    down, left = kind.modules["down"], 0
    for name, module in rig.model.named_modules():
        if name.endswith(f".{down}") and name.split(".")[-len(down.split(".")) - 1].isdecimal():
            with torch.no_grad():
                if family == "gpt2":
                    module.weight[::2] = 0
                else:
                    module.weight[:, ::2] = 0
                left = module.weight.shape[0 if family == "gpt2" else 1] // 2
    return left


def test_blocks_are_taken_from_a_donor(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "donor", seed=5)
    donor = make_rig("llama", "sft", seed=5)
    rig = WarmStart(keep_layers=(0,), take_layers=(1, 2), donor=str(folder)).apply(rig_of("llama"))
    own = make_rig("llama", "sft")
    for place, source, number in ((0, own, 0), (1, donor, 1), (2, donor, 2)):
        for name, weight in source.model.get_submodule(f"model.layers.{number}").named_parameters():
            assert torch.equal(rig.model.get_parameter(f"model.layers.{place}.{name}"), weight)
    assert torch.equal(rig.model.get_parameter("model.norm.weight"), own.model.get_parameter("model.norm.weight"))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (WarmStart(keep_layers=(0, 3)), "keep_layers: found 3, but the model has blocks 0 to 2"),
        (WarmStart(intermediate_size=65), "intermediate_size: found 65, but the model has 64"),
        (WarmStart(take_layers=(0,)), "needs a donor"),
        (WarmStart(take_layers=(0,), donor="nowhere/to/be/found"), "cannot load nowhere/to/be/found"),
    ],
)
def test_what_a_model_does_not_have_is_refused(cut: WarmStart, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut.apply(rig_of("llama"))


def test_a_donor_of_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "donor", "gpt2")
    with pytest.raises(InputError, match="is a gpt2, and the model is a llama"):
        WarmStart(take_layers=(0,), donor=str(folder)).apply(rig_of("llama"))


def test_new_blocks_are_spread_evenly() -> None:
    order = order_of_blocks(WarmStart(grow_layers=2), 4)
    assert [block.is_new for block in order] == [False, False, True, False, False, True]
    assert order[2] == Block(1, is_new=True)
    assert len(order_of_blocks(WarmStart(grow_layers=3), 2)) == 5


def test_numbers_of_layers_are_in_order_for_the_cache() -> None:
    rig = WarmStart(keep_layers=(2, 0), grow_layers=1).apply(rig_of("llama"))
    numbers = [m.layer_idx for m in rig.model.modules() if isinstance(getattr(m, "layer_idx", None), int)]
    assert sorted(set(numbers)) == [0, 1, 2]
    ids = rig.model.generate(TEXT, attention_mask=torch.ones_like(TEXT), max_new_tokens=3, do_sample=False)  # type: ignore[operator]
    assert ids.shape == (2, 9)
    assert replace(rig, model=rig.model)
