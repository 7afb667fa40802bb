"""A model's sizes from its files: against transformers' own instances, and against broken files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shapes import LLAMA_8B
from tenfold.errors import InputError
from tenfold.hub import is_known
from tenfold.shape import read_shape, shape_from_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tenfold.cuts.lora import LoRA, names_layer  # noqa: E402
from tenfold.rig.linear import features, target_linears  # noqa: E402
from tenfold.rig.model import build_rig  # noqa: E402
from tenfold.rig.rig import Source  # noqa: E402
from tenfold.shape.families import FAMILIES as KNOWN  # noqa: E402
from tiny import DECODERS, ENCODERS, FAMILIES, tiny_folder  # noqa: E402


@pytest.fixture(scope="module", params=FAMILIES)
def instance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family and a folder with a tiny random model of it."""
    return request.param, tiny_folder(tmp_path_factory.mktemp(request.param), request.param)


def test_parameters_by_formula_are_those_of_the_headers(instance: tuple[str, Path]) -> None:
    family, folder = instance
    config = json.loads((folder / "config.json").read_text())
    read = read_shape(str(folder))
    model = transformers.AutoModel.from_pretrained(folder)
    head = 0 if read.tied_embeddings or family in ENCODERS else read.head_parameters
    unused = sum(w.numel() for name, w in model.named_parameters() if name.startswith("pooler.") and family != "bert")
    assert read.parameters == sum(w.numel() for w in model.parameters()) - unused + head
    assert shape_from_config("x", config).parameters == read.parameters
    assert read.weights_bytes_on_disk == 4 * read.parameters
    assert read.dtype_on_disk == "float32"


def test_one_weight_more_is_noticed(tmp_path: Path) -> None:
    """Negative control: the formula does not agree with the headers of a model with another vocabulary."""
    folder = tiny_folder(tmp_path / "llama", "llama")
    config = json.loads((folder / "config.json").read_text())
    assert shape_from_config("x", {**config, "vocab_size": 129}).parameters != read_shape(str(folder)).parameters


def test_block_linears_are_the_ones_that_lora_finds(instance: tuple[str, Path]) -> None:
    family, folder = instance
    shape = read_shape(str(folder))
    model = transformers.AutoModel.from_pretrained(folder)
    names = target_linears(model, LoRA(), ())  # type: ignore[arg-type]
    found = sorted(features(model.get_submodule(name)) for name in names if "pooler" not in name)  # type: ignore[arg-type]
    expected = [(linear.in_features, linear.out_features) for linear in shape.block_linears] * shape.layers
    assert found == sorted(expected)
    assert shape.block_parameters == sum(rows * columns for rows, columns in found)
    assert shape.kind == ("decoder" if family in DECODERS else "encoder")


def in_block(name: str) -> str:
    """A module's path inside its block: what follows the block's number."""
    return re.sub(r"^.*?\.\d+\.", "", name)


def test_modules_are_called_what_the_family_says(instance: tuple[str, Path]) -> None:
    shape = read_shape(str(instance[1]))
    model = transformers.AutoModel.from_pretrained(instance[1])
    names = [name for name in target_linears(model, LoRA(), ()) if "pooler" not in name]  # type: ignore[arg-type]
    assert {in_block(name) for name in names} == {linear.module for linear in shape.block_linears}
    assert len(names) == shape.layers * len(shape.block_linears)


@pytest.mark.parametrize("family", KNOWN)
def test_every_known_family_has_these_modules(family: str) -> None:
    """Families that no tiny model stands for, too: built without weights."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    names = {"distilbert": {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}, "gpt2": {}}
    config = transformers.AutoConfig.for_model(family, **names.get(family, sizes), vocab_size=99, pad_token_id=0)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    names = [name for name in target_linears(model, LoRA(), ()) if ".0." in name]
    shape = shape_from_config("x", config.to_dict())
    assert sorted(in_block(name) for name in names) == sorted(linear.module for linear in shape.block_linears)


TARGETS = (
    "q_proj", "self_attn.q_proj", "attn.q_proj", "0.self_attn.q_proj", "2.self_attn.q_proj", "3.self_attn.q_proj",
    "x.self_attn.q_proj", "qkv_proj", "gate_up_proj", "proj", "c_attn", "c_proj", "mlp.c_proj", "attn.c_proj", "query",
    "self.query", "dense", "output.dense", "attention.output.dense", "intermediate.dense", "1.output.dense", "Wo", "Wi",
    "mlp.Wo", "attn.Wqkv", "q_lin", "ffn.lin2", "lin1", "lm_head", "classifier", "pooler.dense", "score", "nothing",
)  # fmt: skip


def test_paper_and_model_agree_on_targets(instance: tuple[str, Path]) -> None:
    """A name is refused on paper if and only if the model refuses it, and is priced for the layers that it adapts."""
    family, folder = instance
    shape = read_shape(str(folder))
    if family in DECODERS:
        rig = build_rig(Source(str(folder)), "text")
    else:
        rig = build_rig(Source(str(folder)), "classify", labels=("a", "b"))
    for target in TARGETS:
        on_paper = {linear.module for linear in shape.block_linears if names_layer(target, linear, shape.layers)}
        try:
            found = target_linears(rig.model, LoRA(targets=(target,)), rig.new_modules)
        except InputError:
            found = []
        assert on_paper == {in_block(name) for name in found}, target


def test_max_positions_is_the_longest_row_that_runs(instance: tuple[str, Path]) -> None:
    """RoBERTa's table has two rows more than it can use; one token too many fails where positions are learned."""
    shape = read_shape(str(instance[1]))
    model = transformers.AutoModel.from_pretrained(instance[1])
    ids = torch.full((1, shape.max_positions), 5)
    assert model(input_ids=ids).last_hidden_state.shape[1] == shape.max_positions
    if not shape.rotary:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, shape.max_positions + 1), 5))


def test_reads_sharded_weights_like_whole_ones(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "whole")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    assert read_shape(str(tmp_path / "sharded")).parameters == read_shape(str(folder)).parameters


def test_reads_no_more_than_headers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    before = read_shape(str(folder))
    weights.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
    assert read_shape(str(folder)) == before


def test_a_configuration_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    shape = read_shape(str(tmp_path))
    assert shape.parameters == 8_030_261_248  # Llama-3.1-8B
    assert shape.weights_bytes_on_disk is None
    assert shape.dtype_on_disk == "bfloat16"
    older = {"torch_dtype" if key == "dtype" else key: value for key, value in LLAMA_8B.items()}
    assert shape_from_config(str(tmp_path), older, tmp_path) == shape


def test_a_text_model_inside_a_multimodal_one(tmp_path: Path) -> None:
    inner = FAMILIES["gemma3"].to_dict()
    shape = shape_from_config("x", {"model_type": "gemma3", "text_config": inner})
    assert shape == shape_from_config("x", inner)


def test_an_unknown_family_with_the_usual_keys() -> None:
    config = {**FAMILIES["llama"].to_dict(), "model_type": "novel"}
    assert shape_from_config("x", config).parameters == shape_from_config("x", FAMILIES["llama"].to_dict()).parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "no hidden_size"),
        ({"num_hidden_layers": 0}, "no num_hidden_layers"),
        ({"vocab_size": "many"}, "no vocab_size"),
        ({"num_experts": 64}, "mixture of experts (num_experts: 64)"),
    ],
)
def test_refuses_what_the_formulas_do_not_describe(change: dict[str, Any], message: str) -> None:
    config = {**FAMILIES["llama"].to_dict(), **change}
    with pytest.raises(InputError, match=re.escape(message)):
        shape_from_config("x", config)


def broken(folder: Path, what: str) -> str:
    tiny_folder(folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    if what == "no config":
        config.unlink()
    elif what == "no JSON":
        config.write_text("{")
    elif what == "a list":
        config.write_text("[]")
    elif what == "no safetensors":
        weights.write_bytes(b"\xff" * 64)
    elif what == "cut header":
        weights.write_bytes(weights.read_bytes()[:20])
    elif what == "odd entry":
        header = b'{"lm_head.weight": {"shape": [2]}}'
        weights.write_bytes(len(header).to_bytes(8, "little") + header)
    elif what == "no index":
        (folder / "model.safetensors.index.json").write_text("[]")
    return str(folder)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "the folder has no config.json"),
        ("no JSON", "not readable as JSON"),
        ("a list", "no mapping of settings"),
        ("no safetensors", "its header claims"),
        ("cut header", "damaged safetensors header"),
        ("odd entry", "damaged safetensors header at 'lm_head.weight'"),
        ("no index", "not an index of weight files"),
    ],
)
def test_broken_folders_are_one_line(what: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_shape(broken(tmp_path / "base", what))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("./nothing", "no such folder"), ("nobody/nothing", "HF_HUB_OFFLINE"), ("nothing", "HF_HUB_OFFLINE")],
)
def test_what_is_not_here_is_named(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=message):
        read_shape(name)


def test_a_hub_that_has_no_address_here_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, port: int) -> None:
        asked.append(host)
        raise OSError("Name or service not known")

    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    is_known.cache_clear()
    try:
        with pytest.raises(InputError, match=r"'nobody/nothing': .* and hub\.example cannot be reached; name a folder"):
            read_shape("nobody/nothing")
    finally:
        is_known.cache_clear()
    assert asked == ["hub.example"]
