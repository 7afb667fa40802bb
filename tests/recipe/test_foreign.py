"""Configurations of Axolotl, TRL and LLaMA-Factory: what carries over, and what is said to be ignored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tenfold.errors import InputError
from tenfold.recipe.foreign import Dialect, Foreign, load_foreign
from tenfold.recipe.schema import LoraWish, QuantizeWish

AXOLOTL = """
base_model: NousResearch/Llama-3.2-1B
load_in_4bit: true
strict: false
datasets:
  - path: rows.jsonl
    type: chat_template
    field_messages: conversation
val_set_size: 0.1
output_dir: ./outputs/lora-out
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
sequence_len: 4096
sample_packing: true
eval_sample_packing: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
attn_implementation: flash_attention_2
warmup_ratio: 0.1
wandb_project: mine
special_tokens:
  pad_token: "<|end_of_text|>"
"""

TRL = """
model_name_or_path: Qwen/Qwen3-0.6B
dataset_name: rows.jsonl
dataset_text_field: body
learning_rate: 2.0e-4
num_train_epochs: 2
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
use_peft: true
lora_r: 8
lora_alpha: 32
packing: true
max_length: 2048
eos_token: <|im_end|>
use_liger_kernel: true
report_to: none
output_dir: out
"""

LLAMA_FACTORY = """
model_name_or_path: meta-llama/Llama-3.2-1B
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: faq
dataset_dir: sets
template: llama3
cutoff_len: 1024
max_samples: 500
overwrite_cache: true
output_dir: saves/run
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
quantization_bit: 4
val_size: 0.1
flash_attn: fa2
"""


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Read a text as the configuration of a tool, with rows.jsonl and LLaMA-Factory's folder beside it."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "faq.json").write_text("[]")
    (tmp_path / "sets" / "dataset_info.json").write_text(json.dumps({"faq": {"file_name": "faq.json"}}))

    def run(text: str, dialect: Dialect, *overrides: str) -> Foreign:
        path = tmp_path / "config.yml"
        path.write_text(text)
        return load_foreign(path, dialect, overrides)

    return run


def test_axolotls_example_carries_over(read: Any, tmp_path: Path) -> None:
    found = read(AXOLOTL, "axolotl")
    recipe = found.recipe
    assert (recipe.model.name, recipe.task) == ("NousResearch/Llama-3.2-1B", "sft")
    assert recipe.data.train == (str(tmp_path / "rows.jsonl"),)
    assert recipe.data.columns.messages == "conversation"
    assert (recipe.data.max_length, recipe.data.eval_fraction) == (4096, 0.1)
    assert recipe.cuts.lora == LoraWish(rank=32, alpha=16, dropout=0.05)
    assert recipe.cuts.quantize == QuantizeWish(storage="nf4")
    assert (recipe.cuts.pack, recipe.cuts.checkpoint) == (True, "full")
    train = recipe.train
    assert (train.batch_size, train.micro_batch_size, train.optimizer) == (8, 2, "adamw_8bit")
    assert (train.learning_rate, train.schedule, train.warmup, train.epochs) == (2e-4, "cosine", 0.1, 1)
    ignored = " ".join(found.ignored)
    said = ("eval_sample_packing", "flash_attention_2", "wandb_project", "special_tokens")
    assert [word for word in said if word not in ignored] == []
    assert len(found.ignored) == 4
    assert all(re.search(r"config\.yml:\d+: ", line) for line in found.ignored)


def test_trls_example_carries_over(read: Any) -> None:
    found = read(TRL, "trl")
    recipe = found.recipe
    assert (recipe.task, recipe.data.columns.text, recipe.data.max_length) == ("text", "body", 2048)
    assert recipe.cuts.lora == LoraWish(rank=8, alpha=32)
    assert (recipe.cuts.pack, recipe.cuts.fuse) == (True, True)
    assert (recipe.train.batch_size, recipe.train.micro_batch_size, recipe.train.epochs) == (32, 4, 2)
    assert [line.split(": ")[1] for line in found.ignored] == ["eos_token"]


def test_llama_factorys_example_carries_over(read: Any, tmp_path: Path) -> None:
    found = read(LLAMA_FACTORY, "llama-factory")
    recipe = found.recipe
    assert recipe.data.train == (str(tmp_path / "sets" / "faq.json"),)
    assert (recipe.data.columns.prompt, recipe.data.columns.completion) == ("instruction", "output")
    assert (recipe.data.max_length, recipe.data.max_rows, recipe.data.eval_fraction) == (1024, 500, 0.1)
    assert recipe.cuts.lora == LoraWish(rank=8)
    assert recipe.cuts.quantize == QuantizeWish(storage="nf4")
    assert (recipe.train.batch_size, recipe.train.micro_batch_size) == (8, 1)
    assert recipe.train.dtype == "bfloat16"
    ignored = " ".join(found.ignored)
    assert "flash_attn" in ignored
    assert "the column input of alpaca rows is not read" in ignored
    assert len(found.ignored) == 2


@pytest.mark.parametrize(
    ("kind", "task", "columns"),
    [("completion", "text", None), ("chat_template", "sft", None), ("alpaca", "sft", ("instruction", "output"))],
)
def test_axolotls_types_of_data(kind: str, task: str, columns: tuple[str, str] | None, read: Any) -> None:
    text = f"base_model: m\ndatasets:\n  - path: rows.jsonl\n    type: {kind}\n"
    recipe = read(text, "axolotl").recipe
    assert recipe.task == task
    assert columns is None or (recipe.data.columns.prompt, recipe.data.columns.completion) == columns


def test_overrides_and_what_a_recipe_says_more_are_taken(read: Any) -> None:
    found = read(TRL, "trl", "machine.name=auto", "train.epochs=1")
    assert (found.recipe.machine.name, found.recipe.train.epochs) == ("auto", 1)


@pytest.mark.parametrize(
    ("text", "dialect", "message"),
    [
        ("", "trl", "expected the keys and values"),
        ("- a\n", "axolotl", "expected the keys and values"),
        ("base_model: m\n", "axolotl", "data: is missing"),
        ("dataset_name: rows.jsonl\n", "trl", "model: is missing"),
        ("base_model: m\ndatasets: [{path: rows.jsonl, type: pygmalion}]\n", "axolotl", "data: is missing"),
        ("a: &x 1\nb: *x\n", "trl", "anchors and aliases are not read"),
    ],
)
def test_what_cannot_become_a_recipe_is_refused(text: str, dialect: Dialect, message: str, read: Any) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read(text, dialect)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_foreign(tmp_path / "none.yml", "trl")


def test_a_value_that_tenfold_cannot_serve_is_ignored_with_the_reason(read: Any) -> None:
    found = read(TRL + "optim: galore_adamw\nfp16: true\n", "trl")
    assert found.recipe.train.optimizer == "adamw"
    reasons = [line for line in found.ignored if "optim" in line or "fp16" in line]
    assert len(reasons) == 2
    assert "expected adamw" in reasons[0] + reasons[1]
