"""A narrower model is what is left of the wide one: where the rest weighed nothing, it computes the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rigs import make_rig
from tenfold.cuts import WarmStart
from tenfold.data.tokenizer import read_tokenizer
from tenfold.errors import InputError
from tenfold.rig.model import build_rig, load_pretrained
from tenfold.rig.rig import Rig, Source
from tenfold.shape import shape_from_config
from tenfold.shape.families import FAMILIES as SHAPES
from tiny import FAMILIES

TEXT = torch.tensor([[5, 7, 20, 33, 8, 21], [7, 6, 150, 4, 11, 20]])
ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
OWN_HEAD_DIM = [family for family in FAMILIES if family not in (*ENCODERS, "gpt2")]
GONE = [0, 3, 5, 6, 9, 13, 17, 18, 22, 23, 26, 27, 28, 29, 30, 31]
"""Channels; with them goes half of the heads where heads divide the hidden size."""
PROSE = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a"
    " wife."
)
LEFT = [channel for channel in range(32) if channel not in GONE]


def rig_of(family: str) -> Rig:
    return make_rig(family, "sft" if family not in ENCODERS else "classify")


def answer(rig: Rig, text: torch.Tensor = TEXT) -> torch.Tensor:
    """Logits of a decoder; of an encoder the last states in the channels that are left."""
    model = rig.model if rig.task == "sft" else rig.model.base_model
    with torch.no_grad():
        found = model.eval()(input_ids=text, attention_mask=torch.ones_like(text))
    if rig.task == "sft":
        return found.logits
    return found.last_hidden_state[..., LEFT if found.last_hidden_state.shape[-1] == 32 else slice(None)]


def silence_heads(rig: Rig) -> None:
    """The first half of the heads of each block leads nowhere."""
    for module in linears(rig, "o"):
        with torch.no_grad():
            weight = module.weight.T if rig.model.config.model_type == "gpt2" else module.weight
            weight[:, : weight.shape[1] // 2] = 0


def silence_channels(rig: Rig) -> None:
    """Nothing is ever written to GONE; where norms take a mean off, that of the others is 0 too."""
    gpt2, encoder = rig.model.config.model_type == "gpt2", rig.model.config.model_type in ENCODERS
    with torch.no_grad():
        writing = [module.weight for module in rig.model.modules() if isinstance(module, torch.nn.Embedding)]
        for module in (*linears(rig, "o"), *linears(rig, "down")):
            writing.append(module.weight if gpt2 else module.weight.T)
            writing += [] if module.bias is None else [module.bias]
        for module in rig.model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.3)  # so that what it writes has the mean 0
                writing += [] if cast("Any", module.bias) is None else [module.bias]
        for weight in writing:
            weight[..., GONE] = 0
            if gpt2 or encoder:
                weight[..., LEFT] -= weight[..., LEFT].mean(-1, keepdim=True)


def linears(rig: Rig, role: str) -> list[Any]:
    """The linear layers of all blocks that do the same."""
    path = SHAPES[str(rig.model.config.model_type)].modules[role]
    return [module for name, module in rig.model.named_modules() if name.endswith(f".{path}") and is_inside(name, path)]


def is_inside(name: str, path: str) -> bool:
    """Directly in a numbered block."""
    return name.removesuffix(f".{path}").split(".")[-1].isdecimal()


CASES = [
    *((family, WarmStart(num_attention_heads=2), (silence_heads,)) for family in OWN_HEAD_DIM),
    *((family, WarmStart(hidden_size=16), (silence_channels,)) for family in OWN_HEAD_DIM),
    *(
        (family, WarmStart(hidden_size=16, num_attention_heads=2), (silence_heads, silence_channels))
        for family in FAMILIES
    ),
]


NAMES = [f"{family}, {' and '.join(make.__name__ for make in silence)}" for family, _, silence in CASES]


@pytest.mark.parametrize(("family", "cut", "silence"), CASES, ids=NAMES)
def test_what_weighs_nothing_is_not_missed(
    family: str, cut: WarmStart, silence: tuple[Callable[[Rig], None], ...], tmp_path: Path
) -> None:
    loud = rig_of(family)
    assert not torch.allclose(answer(cut.apply(loud)), answer(loud), atol=1e-2), "the control: nothing is silent"
    rig = rig_of(family)
    for make_silent in silence:
        make_silent(rig)
    expected = answer(rig)
    narrow = cut.apply(rig)
    torch.testing.assert_close(answer(narrow), expected, rtol=1e-3, atol=1e-3)  # norms add an epsilon to their mean
    narrow.model.save_pretrained(tmp_path)
    loaded = type(narrow.model).from_pretrained(tmp_path)
    assert torch.equal(loaded.eval()(input_ids=TEXT).logits, narrow.model.eval()(input_ids=TEXT).logits)
    shape = shape_from_config(family, json.loads((tmp_path / "config.json").read_text()))
    assert (shape.hidden_size, shape.heads) == (cut.hidden_size or 32, cut.num_attention_heads or 4)
    foretold = shape_from_config(family, FAMILIES[family].to_dict()).with_width(
        cut.hidden_size, cut.num_attention_heads
    )
    assert replace(foretold, dtype_on_disk=shape.dtype_on_disk) == shape


@pytest.mark.parametrize(
    ("family", "cut", "message"),
    [
        ("llama", WarmStart(hidden_size=33), "hidden_size: found 33, but the model has 32; write fewer"),
        ("llama", WarmStart(num_attention_heads=5), "num_attention_heads: found 5, but the model has 4; write fewer"),
        ("llama", WarmStart(num_attention_heads=1), "found 1, but heads share keys and values in groups of 2; write a"),
        ("gpt2", WarmStart(num_attention_heads=2), "for 2 heads write hidden_size 16 and num_attention_heads 2"),
        ("bert", WarmStart(hidden_size=24), "a bert divides its hidden size among its heads; for 4 heads write"),
    ],
)
def test_a_width_that_no_such_model_has_is_refused(family: str, cut: WarmStart, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut.apply(rig_of(family))


@pytest.mark.parametrize("cut", [WarmStart(hidden_size=384), WarmStart(num_attention_heads=4)], ids=str)
def test_real_weights_start_better_than_noise(cut: WarmStart, shared_model: Path) -> None:
    rig = load_pretrained(build_rig(Source(str(shared_model)), "text"))
    text = torch.tensor([read_tokenizer(shared_model).encode(PROSE, add_special_tokens=False)])
    narrow = cut.apply(rig).model
    losses: list[float] = []
    for model in (narrow, type(narrow)(narrow.config)):
        with torch.no_grad():
            losses.append(float(model.eval()(input_ids=text, labels=text).loss))
    assert losses[0] < losses[1] - 1, losses
