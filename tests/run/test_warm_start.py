"""A run with a warm start, from its recipe to what transformers and PEFT load, and back after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version

import tenfold
from tenfold.errors import BudgetReached, InputError
from tenfold.export.adapter import load_adapter
from tenfold.export.merge import merge
from tenfold.recipe import Budget
from tenfold.run.checkpoint import load_tensors, newest_state
from tenfold.run.events import Event
from vocabularies import DOMAIN, growing_folder, plain_texts, warm_recipe, write_texts

IDS = torch.tensor([[5, 9, 17, 33, 8], [7, 6, 80, 4, 11]])


def train(recipe: dict[str, Any]) -> tenfold.Receipt:
    return tenfold.train(tenfold.plan(recipe))


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "task"), [("llama", "text"), ("qwen3", "text"), ("gemma3", "text"), ("bert", "classify")]
)
def test_adapters_load_everywhere_without_resizing(family: str, task: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    train(warm_recipe(tmp_path, family, task))
    adapter = tmp_path / "run" / "adapter-last"
    config = json.loads((adapter / "adapter_config.json").read_text())
    rig = load_adapter(adapter)
    ids = torch.tensor([[5, 9, *rig.rows[:2], 8]])
    expected = logits(rig.model, ids)

    auto = transformers.AutoModelForSequenceClassification if task == "classify" else transformers.AutoModelForCausalLM
    more = {"num_labels": 3} if task == "classify" else {}
    base = auto.from_pretrained(config["base_model_name_or_path"], **more)
    assert not torch.allclose(logits(base, ids), expected, atol=1e-3), "the control: without the adapter it differs"
    loaded = [peft.PeftModel.from_pretrained(base, adapter)]
    if Version(transformers.__version__) >= Version("5.23"):  # 5.17 leaves the rows out without a word
        loaded.append(auto.from_pretrained(adapter, **more))
    if task == "text":
        loaded.append(peft.AutoPeftModelForCausalLM.from_pretrained(adapter))
    for model in loaded:
        torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-5)

    merge(adapter, tmp_path / "merged")
    torch.testing.assert_close(logits(auto.from_pretrained(tmp_path / "merged"), ids), expected, rtol=1e-4, atol=1e-5)
    for folder in (adapter, tmp_path / "merged"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert max(tokenizer(DOMAIN[0])["input_ids"]) >= min(rig.rows)


@pytest.mark.filterwarnings("ignore")
def test_a_moved_run_still_loads(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    train(warm_recipe(tmp_path))
    adapter = tmp_path / "run" / "adapter-last"
    rows = load_adapter(adapter).rows
    ids = torch.tensor([[5, 9, *rows[:2], 8]])
    expected = logits(load_adapter(adapter).model, ids)
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "adapter-last"
    assert "../base" in (moved / "README.md").read_text()
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "moved" / "base")
    for model in (load_adapter(moved).model, peft.PeftModel.from_pretrained(base, moved)):
        torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-5)
    merge(moved, tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, ids), expected, rtol=1e-4, atol=1e-5)
    (tmp_path / "moved" / "base").rename(tmp_path / "moved" / "other")
    with pytest.raises(InputError, match="base"):  # the control: without the folder beside it, nothing is found
        load_adapter(moved)


def test_only_the_rows_are_saved_and_have_moments(tmp_path: Path) -> None:
    train(warm_recipe(tmp_path))
    saved = newest_state(tmp_path / "run" / "checkpoints")
    assert saved is not None
    shapes = {name: tuple(tensor.shape) for name, tensor in load_tensors(saved, "cpu").items()}
    tables = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] > 100]
    assert not tables
    assert sum(shape == (12, 32) for name, shape in shapes.items() if name.startswith("optimizer/")) == 4  # two tables


def test_a_full_fine_tune_is_a_plain_folder(tmp_path: Path) -> None:
    receipt = train(warm_recipe(tmp_path, cuts={"lora": False, "warm_start": {"tokens": 12}}))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model-last")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model-last")
    assert model.config.vocab_size == base.config.vocab_size == max(300, len(tokenizer))
    assert not torch.allclose(logits(model), logits(base), atol=1e-4)
    assert receipt.retention is not None
    assert receipt.retention.source == "texts that the base wrote by itself"


def test_old_domain_and_facts_are_in_the_receipt(tmp_path: Path) -> None:
    receipt = train(warm_recipe(tmp_path))
    kept = receipt.retention
    assert kept is not None
    assert (kept.source, kept.texts, kept.unit) == ("old.jsonl", 16, "nats per byte")
    assert kept.after is not None
    assert kept.before > 0
    assert kept.after != kept.start
    assert receipt.seconds_by_part["warm_start"] > 0
    used = next(cut for cut in receipt.cuts if cut.name == "warm_start")
    assert used.facts[0].startswith("12 new rows by distil")
    assert receipt.base_sha256 is not None
    tokens = receipt.quantity("tokens")
    assert tokens is not None
    assert tokens.predicted == pytest.approx(tokens.measured, rel=0.05)


def test_an_encoder_keeps_its_states(tmp_path: Path) -> None:
    receipt = train(warm_recipe(tmp_path, "bert", "classify"))
    assert receipt.retention is not None
    assert receipt.retention.unit == "cosine"
    assert receipt.retention.before == 1.0
    assert 0.3 < (receipt.retention.after or 0) < 0.99999
    unnamed = warm_recipe(tmp_path / "other", "bert", "classify")
    unnamed["cuts"]["warm_start"] = {"tokens": 5}
    assert train(unnamed).retention is None


@pytest.mark.parametrize("settings", [{"tokens": 12, "rows_first": 0.5}, {"grow_layers": 1, "rows_first": 0.5}])
def test_what_is_new_learns_first_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    """Up to half of the steps the adapters stand still, and so do their moments."""
    recipe = warm_recipe(tmp_path, train={"max_steps": 4, "save_every_steps": 2, "keep_checkpoints": 9})
    recipe["cuts"]["warm_start"] = settings
    train(recipe)
    folder = tmp_path / "run" / "checkpoints"
    from tenfold.run.checkpoint import SavedState

    half, end = (load_tensors(SavedState(step, folder / f"step-{step:08d}", {}), "cpu") for step in (2, 4))
    ups = [name for name in half if name.endswith("lora_B")]
    news = [name for name in half if name.startswith("weights/") and (name.endswith(".rows") or "layers.3." in name)]
    assert ups
    assert news
    assert all(not half[name].any() and end[name].any() for name in ups)
    assert any(not torch.equal(half[name], end[name]) for name in news)
    with_moments = [
        len({name.split("/")[1] for name in state if name.startswith("optimizer/")}) for state in (half, end)
    ]
    assert with_moments[0] < with_moments[1]


def test_rows_have_a_rate_of_their_own(tmp_path: Path) -> None:
    still = warm_recipe(tmp_path / "still", cuts={"warm_start": {"tokens": 12, "rows_learning_rate": 1e-9}})
    train(still)
    moved = warm_recipe(tmp_path / "moved", cuts={"warm_start": {"tokens": 12, "rows_learning_rate": 1e-2}})
    train(moved)
    for name, moves in (("still", False), ("moved", True)):
        rig = load_adapter(tmp_path / name / "run" / "adapter-last")
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name / "run" / "base")
        rows = rig.model.get_input_embeddings().rows  # type: ignore[union-attr]
        assert torch.allclose(rows, base.get_input_embeddings().weight[list(rig.rows)], atol=1e-6) is not moves


class Stop:
    """An observer that makes the run think the budget is spent after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, event: Event) -> None:
        if event.kind == "step" and event.values["step"] == self.after:
            raise KeyboardInterrupt


def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    cuts = {"pack": False}  # saved states cost time, and the plans of the two might differ
    whole = warm_recipe(tmp_path / "whole", cuts=cuts, train={"max_steps": 6, "micro_batch_size": 4})
    train(whole)
    train_parts = {"max_steps": 6, "micro_batch_size": 4, "save_every_steps": 1}
    parts = warm_recipe(tmp_path / "parts", cuts=cuts, train=train_parts)
    with pytest.raises(KeyboardInterrupt):
        tenfold.train(tenfold.plan({**parts, "train": {**parts["train"], "log_every_steps": 1}}), [Stop(3)])
    base = tmp_path / "parts" / "run" / "base" / "model.safetensors"
    written = base.stat().st_mtime_ns
    receipt = train({**parts, "train": {**parts["train"], "log_every_steps": 1}})
    assert receipt.resumes == 1
    assert base.stat().st_mtime_ns == written, "the base is made once"
    states = [newest_state(tmp_path / name / "run" / "checkpoints") for name in ("whole", "parts")]
    one, other = (load_tensors(state, "cpu") for state in states if state is not None)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("weights/"))


def test_quantized_blocks_leave_the_new_one_whole(tmp_path: Path) -> None:
    recipe = warm_recipe(tmp_path)
    recipe["cuts"] = {"lora": {"rank": 2}, "quantize": "int8", "warm_start": {"grow_layers": 1}}
    train(recipe)
    rig = load_adapter(tmp_path / "run" / "adapter-last")
    (name,) = rig.new_modules
    from tenfold.rig.stored_linear import StoredLinear

    stored = [path for path, module in rig.model.named_modules() if isinstance(module, StoredLinear)]
    assert stored
    assert not any(path.startswith(name) for path in stored)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 100_000}, "found 100,000, but domain.jsonl .* gives only"),
        ({"tokens": "words.txt"}, "words.txt cannot be read"),
        ({"tokenizer": "bert"}, r"bytes written as letters \(Ġcell\)"),
        ({"tokens": 12, "initialise": "donor", "donor": "bert"}, "so that none can be recognised"),
        ({"take_layers": [0], "donor": "bert"}, "blocks can only come from the same architecture"),
        ({"tokens": 12, "old_text": "empty.jsonl"}, "no row with a 'text' column"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = warm_recipe(tmp_path)
    growing_folder(tmp_path / "bert", "bert")
    (tmp_path / "empty.jsonl").write_text('{"other": "x"}\n')
    for key in ("tokenizer", "donor", "tokens", "old_text"):
        if isinstance(settings.get(key), str):
            settings = {**settings, key: str(tmp_path / settings[key])}
    recipe["cuts"]["warm_start"] = settings
    with pytest.raises(InputError, match=message):
        train(recipe)
    assert not (tmp_path / "run" / "base").exists()


def test_text_too_small_to_choose_from_is_refused(tmp_path: Path) -> None:
    recipe = warm_recipe(tmp_path, cuts={"warm_start": True})
    recipe["data"]["train"] = str(write_texts(tmp_path / "few.jsonl", plain_texts(3)))
    with pytest.raises(InputError, match=r"few.jsonl: \d+ positions of text are too few to choose from"):
        tenfold.plan(recipe)


def test_words_of_a_file_are_added(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(DOMAIN[:3]) + "\n\n")
    recipe = warm_recipe(tmp_path, cuts={"warm_start": {"tokens": str(tmp_path / "words.txt")}})
    plan = tenfold.plan(recipe)
    cut = next(cut for cut in plan.cuts if cut["cut"] == "warm_start")
    assert {f"Ġ{word}" for word in DOMAIN[:3]} <= set(cut["tokens"])
    (tmp_path / "words.txt").write_text("myocardium\nmyocardium\n")
    with pytest.raises(InputError, match=r"words.txt:2: .* has 'Ġmyocardium' already"):
        tenfold.plan(recipe)


def test_the_budget_counts_the_preparation(tmp_path: Path) -> None:
    plan = tenfold.plan(warm_recipe(tmp_path))
    short = plan.recipe.model_copy(update={"budget": Budget(hours=1e-6)})
    with pytest.raises(BudgetReached):
        tenfold.train(plan.model_copy(update={"recipe": short}))
    receipt = tenfold.Receipt.read(tmp_path / "run" / "receipt.json")
    assert receipt.seconds_by_part["warm_start"] > 0
    assert receipt.measured("steps") == 0
    assert receipt.retention is not None
    assert receipt.retention.after is None, "no money was left to measure it"
