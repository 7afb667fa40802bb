"""What is saved loads in PEFT, in transformers and here, with the same logits, and only on its own base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tenfold.cuts import FineTune, LoRA, Pack, Quantize, on_rig
from tenfold.errors import InputError
from tenfold.export.adapter import load_adapter, save_adapter
from tenfold.export.base_hash import base_sha256
from tenfold.export.merge import merge, save_model
from tenfold.rig.model import build_rig
from tenfold.rig.quantizing import stored_as
from tenfold.rig.rig import Rig, Source, Task
from tiny import DECODERS, ENCODERS, FAMILIES, tiny_folder

LABELS = ("billing", "login", "other")
IDS = torch.tensor([[5, 9, 17, 33, 8], [7, 6, 80, 4, 11]])


def trained_rig(base: Path, task: Task, cut: LoRA) -> Rig:
    """A rig whose adapters are no longer zero."""
    torch.manual_seed(1)
    rig = on_rig((FineTune(), cut), build_rig(Source(str(base)), task, labels=LABELS if task == "classify" else ()))
    with torch.no_grad():
        for _, weight in rig.trainable:
            weight += 0.1 * torch.randn_like(weight)
    rig.model.eval()
    return rig


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def auto(task: Task) -> type:
    return transformers.AutoModelForSequenceClassification if task == "classify" else transformers.AutoModelForCausalLM


CASES: list[tuple[str, Task]] = [(family, "classify") for family in FAMILIES] + [(family, "sft") for family in DECODERS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "task"), CASES)
def test_round_trips_with_equal_logits(family: str, task: Task, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_folder(tmp_path / "base", family)
    rig = trained_rig(base, task, LoRA(rank=4, alpha=8.0, rslora=family == "qwen3"))
    expected = logits(rig.model)
    save_adapter(rig, tmp_path / "adapter", base_sha256(base))

    plain = auto(task).from_pretrained(base, **({"num_labels": 3} if task == "classify" else {}))
    assert not torch.allclose(logits(plain), expected, atol=1e-3), "the control: without the adapter it differs"
    in_peft = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    torch.testing.assert_close(logits(in_peft), expected, rtol=1e-5, atol=1e-5)

    torch.testing.assert_close(logits(load_adapter(tmp_path / "adapter").model), expected, rtol=1e-5, atol=1e-5)

    merge(tmp_path / "adapter", tmp_path / "merged")
    merged = auto(task).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    if task == "classify":
        assert tuple(merged.config.id2label.values()) == LABELS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("storage", ["nf4", "int8", "fp8"])
@pytest.mark.parametrize(("family", "task"), [("llama", "sft"), ("gpt2", "sft"), ("phi3", "sft"), ("bert", "classify")])
def test_an_adapter_of_a_quantized_base_goes_with_it(family: str, task: Task, storage: Any, tmp_path: Path) -> None:
    """The adapter names the original base; loading and merging it take the base as it was stored."""
    peft = pytest.importorskip("peft")
    base = tiny_folder(tmp_path / "base", family)
    labels = LABELS if task == "classify" else ()
    torch.manual_seed(1)
    cuts = (FineTune(), Quantize(storage), LoRA(rank=4))
    rig = on_rig(cuts, build_rig(Source(str(base)), task, labels=labels))
    with torch.no_grad():
        for _, weight in rig.trainable:
            weight += 0.1 * torch.randn_like(weight)
    expected = logits(rig.model)
    save_adapter(rig, tmp_path / "adapter", base_sha256(base))

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["fan_in_fan_out"] == (family == "gpt2")
    loaded = load_adapter(tmp_path / "adapter")
    assert stored_as(loaded.model) == storage
    torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-5, atol=1e-5)

    (fact,) = merge(tmp_path / "adapter", tmp_path / "merged")
    assert f"as {storage} stored it" in fact
    merged = auto(task).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)

    plain = auto(task).from_pretrained(base, **({"num_labels": 3} if task == "classify" else {}))
    on_original = logits(peft.PeftModel.from_pretrained(plain, tmp_path / "adapter"))
    assert not torch.allclose(on_original, expected, rtol=1e-3, atol=1e-3), "the control: the original base differs"
    assert float((on_original - expected).norm() / expected.norm()) < 0.5, "but PEFT loads it all the same"


def test_merging_a_plain_base_has_nothing_to_say(adapter: Path) -> None:
    assert merge(adapter, adapter.parent / "merged") == ()


def test_a_fully_trained_model_is_a_plain_folder(tmp_path: Path) -> None:
    rig = on_rig((FineTune(), Pack()), build_rig(Source(str(tiny_folder(tmp_path / "base"))), "sft"))
    save_model(rig, tmp_path / "model")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.config._attn_implementation == "sdpa"
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(logits(loaded), logits(base))


def test_named_targets_are_the_only_ones(tmp_path: Path) -> None:
    rig = trained_rig(tiny_folder(tmp_path / "base"), "sft", LoRA(rank=2, targets=("q_proj", "down_proj")))
    assert {name.split(".")[-2] for name, _ in rig.trainable} == {"q_proj", "down_proj"}


def test_an_unknown_target_is_refused_with_the_real_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no linear layer is called 'q_prj'; this model has down_proj, gate_proj"):
        trained_rig(tiny_folder(tmp_path / "base"), "sft", LoRA(targets=("q_prj",)))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    base = tiny_folder(tmp_path / "base")
    save_adapter(trained_rig(base, "sft", LoRA(rank=4)), tmp_path / "adapter", base_sha256(base))
    return tmp_path / "adapter"


def test_equal_adapters_are_equal_bytes(tmp_path: Path) -> None:
    rig = trained_rig(tiny_folder(tmp_path / "base"), "classify", LoRA(rank=4))
    files = [tmp_path / str(number) / "adapter_model.safetensors" for number in range(4)]
    for file in files:
        save_adapter(rig, file.parent, "0" * 64)
    assert len({file.read_bytes() for file in files}) == 1
    save_adapter(rig, files[0].parent, "1" * 64)
    assert files[0].read_bytes() != files[1].read_bytes(), "the control: another base is another file"


def test_another_base_of_the_same_shape_is_refused(adapter: Path) -> None:
    shutil.rmtree(adapter.parent / "base")
    tiny_folder(adapter.parent / "base", seed=1)
    with pytest.raises(InputError, match="trained on a base with hash"):
        load_adapter(adapter)
    with pytest.raises(InputError, match="trained on a base with hash"):
        merge(adapter, adapter.parent / "merged")
    assert not (adapter.parent / "merged").exists()


def test_the_hash_does_not_depend_on_shards(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert base_sha256(tmp_path / "sharded") == base_sha256(base)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "not an adapter folder"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"short"), "cannot be read"),
        (lambda folder: edit(folder, "r", 8), "is \\(4, 32\\), the model wants \\(8, 32\\)"),
        (lambda folder: edit(folder, "target_modules", ["q_proj"]), "has an unexpected tensor"),
    ],
)
def test_a_damaged_adapter_is_refused(adapter: Path, damage, message: str) -> None:
    damage(adapter)
    with pytest.raises(InputError, match=message):
        load_adapter(adapter)


def edit(folder: Path, key: str, value: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_a_full_folder_is_not_merged_over(adapter: Path) -> None:
    with pytest.raises(InputError, match="not empty"):
        merge(adapter, adapter)


def test_every_family_is_covered() -> None:
    assert {family for family, _ in CASES} == {*DECODERS, *ENCODERS}
