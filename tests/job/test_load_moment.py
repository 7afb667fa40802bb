"""A warm start reads the model dense before it is stored in few bits: the moment "load" beside the allocator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from torch.profiler import ProfilerActivity, profile, record_function  # noqa: E402

import tenfold  # noqa: E402
from held_bytes import highest_held_bytes  # noqa: E402
from tenfold.cuts import WarmStart, cut_from_dict  # noqa: E402
from tenfold.data import read_tokenizer  # noqa: E402
from tenfold.rig.model import build_rig, load_pretrained  # noqa: E402
from tenfold.rig.rig import Source  # noqa: E402
from tenfold.rig.warm.start import change_model  # noqa: E402
from tenfold.run.retention import nats_per_byte  # noqa: E402
from vocabularies import bpe, domain_texts, plain_texts, save_tokenizer, warm_recipe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # torch 2.11's


def make_model(folder: Path) -> Path:
    """Large enough for its weights to count."""
    torch.manual_seed(0)
    tokenizer = bpe(plain_texts(), 290)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=1024,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return save_tokenizer(tokenizer, folder)


def held_peak(recipe: dict[str, Any], cut: WarmStart) -> int:
    """The most bytes while the model is changed, and an old text is scored before; its own weights included."""
    tokenizer = read_tokenizer(recipe["model"])
    rig = load_pretrained(build_rig(Source(recipe["model"]), "text", device=torch.device("cpu")))
    weights = sum(weight.numel() * 4 for weight in rig.model.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found, record_function("change"):
        nats_per_byte(rig, tokenizer, ["".join(plain_texts(40, 7))[:1500]])
        change_model(replace(rig, texts=tuple(domain_texts(40))), cut)
    return weights + highest_held_bytes(found)


@pytest.mark.parametrize(
    "settings", [{"tokens": 12}, {"tokens": 12, "initialise": "mean"}, {"grow_layers": 2}], ids=str
)
def test_it_is_the_peak_where_the_base_is_stored_small(settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = warm_recipe(tmp_path)
    recipe["model"] = str(make_model(tmp_path / "model"))
    recipe["train"] = {**recipe["train"], "batch_size": 1}  # a step is small, whatever a CPU computes in
    recipe["cuts"] = {"lora": {"rank": 2}, "quantize": "nf4", "warm_start": settings}
    plan = tenfold.plan(recipe)
    (cut,) = (found for entry in plan.cuts if isinstance(found := cut_from_dict(entry), WarmStart))
    measured = held_peak(recipe, cut)
    foretold = plan.prediction.bytes_by_kind["weights"]
    assert plan.prediction.peak_moment == "load"
    assert measured <= foretold <= 1.35 * measured
    recipe["cuts"] = {"lora": {"rank": 2}, "quantize": "nf4"}
    without = tenfold.plan(recipe).prediction
    held = without.peak_bytes - without.bytes_by_kind["libraries"]
    assert held < measured, "the control: a step needs less, so that what fits it need not fit the load"
