"""What is read is what was meant: scalars, aliases, overrides, paths, and the way back to YAML."""

# ruff: noqa: E501 (a case of a table is one line)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tenfold.errors import InputError
from tenfold.recipe import (
    CheckpointWish,
    FuseWish,
    LoraWish,
    PackWish,
    Recipe,
    load_recipe,
    parse_recipe,
    recipe_from_dict,
    recipe_json_schema,
    recipe_sha256,
    recipe_to_yaml,
)
from tenfold.recipe.aliases import IN_SECTION, RENAMES, SPECIAL
from tenfold.recipe.words import all_leaves, expected, find_key
from tenfold.recipe.yaml_lines import plain_scalar

HEAD = "model: tiny\ntask: classify\ndata: rows.jsonl\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("2.", 2.0), (".5", 0.5), ("-3", -3), ("+3", 3), ("0", 0), ("0.10", 0.1),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("12:30", "12:30"), ("0123", "0123"),
        ("0x1F", "0x1F"), ("0o17", "0o17"), ("1_000", "1_000"), ("2026-01-01", "2026-01-01"), ("nan", "nan"),
        ("true", True), ("False", False), ("~", None), ("", None), ("null", None), ("-.inf", float("-inf")),
        ("-", "-"), (".", "."), ("e5", "e5"), ("1.2.3", "1.2.3"), ("9" * 41, "9" * 41),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


ALIASES = [
    ("lora_r: 8", "cuts: {lora: {rank: 8}}"),
    ("adapter: lora\nlora_r: 8\nlora_alpha: 16", "cuts: {lora: {rank: 8, alpha: 16}}"),
    ("adapter: lora", "cuts: {lora: true}"),
    ("adapter:", "cuts: {lora: false}"),
    ("adapter: none", "cuts: {lora: off}"),
    ("use_peft: true", "cuts: {lora: on}"),
    ("cuts: {lora: {r: 4, target_modules: [q_proj], use_rslora: true}}", "cuts: {lora: {rank: 4, targets: [q_proj], rslora: true}}"),
    ("lora_dropout: 0.1\npeft_use_rslora: true", "cuts: {lora: {dropout: 0.1, rslora: true}}"),
    ("lora_target_modules: all-linear\nlora_r: 2", "cuts: {lora: {targets: all-linear, rank: 2}}"),
    ("lora_target_modules: [all-linear]", "cuts: {lora: {targets: all-linear}}"),
    ("lora_target_linear: true\nlora_target_modules:", "cuts: {lora: {targets: all-linear}}"),
    ("lora_target_linear: false\nlora_r: 8", "cuts: {lora: {rank: 8}}"),
    ("sequence_len: 128", "data: {train: rows.jsonl, max_length: 128}"),
    ("max_length: 128", "data: {train: rows.jsonl, max_length: 128}"),
    ("max_seq_length: 128", "data: {train: rows.jsonl, max_length: 128}"),
    ("sample_packing: true", "cuts: {pack: true}"),
    ("packing: false", "cuts: {pack: false}"),
    ("use_liger_kernel: true", "cuts: {fuse: true}"),
    ("gradient_checkpointing: true", "cuts: {checkpoint: full}"),
    ("gradient_checkpointing: false", "cuts: {checkpoint: false}"),
    ("micro_batch_size: 4", "train: {micro_batch_size: 4, batch_size: 4}"),
    ("per_device_train_batch_size: 4", "train: {micro_batch_size: 4, batch_size: 4}"),
    ("micro_batch_size: 4\ngradient_accumulation_steps: 3", "train: {micro_batch_size: 4, batch_size: 12}"),
    ("train: {per_device_train_batch_size: 4, gradient_accumulation_steps: 3}", "train: {micro_batch_size: 4, batch_size: 12}"),
    ("train: {micro_batch_size: 4}", "train: {micro_batch_size: 4, batch_size: 32}"),
    ("micro_batch_size: 4\ntrain: {batch_size: 6}", "train: {micro_batch_size: 4, batch_size: 6}"),
    ("gradient_accumulation_steps: 4\ntrain: {batch_size: 8}", "train: {micro_batch_size: 2, batch_size: 8}"),
    ("num_epochs: 2", "train: {epochs: 2}"),
    ("num_train_epochs: 2", "train: {epochs: 2}"),
    ("max_steps: 7", "train: {max_steps: 7}"),
    ("max_steps: -1\nnum_epochs: 2", "train: {epochs: 2}"),
    ("learning_rate: 1e-3", "train: {learning_rate: 0.001}"),
    ("lr: 1e-3", "train: {learning_rate: 0.001}"),
    ("lr_scheduler: cosine", "train: {schedule: cosine}"),
    ("lr_scheduler_type: constant_with_warmup", "train: {schedule: constant}"),
    ("warmup_ratio: 0.1", "train: {warmup: 0.1}"),
    ("warmup_steps: 10", "train: {warmup: 10}"),
    ("weight_decay: 0.1\nadam_beta1: 0.8\nadam_beta2: 0.9\nadam_epsilon: 1e-6", "train: {weight_decay: 0.1, beta1: 0.8, beta2: 0.9, epsilon: 1e-6}"),
    ("max_grad_norm: 0", "train: {max_grad_norm: null}"),
    ("max_grad_norm: 0.5", "train: {max_grad_norm: 0.5}"),
    ("seed: 7", "train: {seed: 7}"),
    ("bf16: true", "train: {dtype: bfloat16}"),
    ("bf16: auto", "train: {dtype: auto}"),
    ("bf16: false\nfp16: false", "train: {dtype: float32}"),
    ("torch_dtype: bf16", "train: {dtype: bfloat16}"),
    ("dtype: float32", "train: {dtype: float32}"),
    ("eval_steps: 5\nsave_steps: 6\nlogging_steps: 7\nsave_total_limit: 8\neval_strategy: steps", "train: {eval_every_steps: 5, save_every_steps: 6, log_every_steps: 7, keep_checkpoints: 8}"),
    ("eval_strategy: no", "data: {train: rows.jsonl, eval_fraction: 0}"),
    ("val_set_size: 0.2", "data: {train: rows.jsonl, eval_fraction: 0.2}"),
    ("output_dir: out", "output: {folder: out}"),
    ("report_to: none", "output: {trackers: []}"),
    ("report_to: wandb", "output: {trackers: [wandb]}"),
    ("report_to: [wandb, tensorboard]", "output: {trackers: [wandb, tensorboard]}"),
    ("tags: [a]", "output: {tags: [a]}"),
    ("dataset_text_field: body", "data: {train: rows.jsonl, columns: {text: body}}"),
    ("text_column_name: body\nlabel_column_name: kind", "data: {train: rows.jsonl, columns: {text: body, label: kind}}"),
    ("validation_file: held.csv\nmax_train_samples: 9", "data: {train: rows.jsonl, eval: [held.csv], max_rows: 9}"),
    ("test_datasets: [{path: held.csv}]", "data: {train: rows.jsonl, eval: held.csv}"),
    ("budget_usd: 5\nbudget_hours: 2", "budget: {usd: 5, hours: 2}"),
    ("usd_per_hour: 2", "machine: {usd_per_hour: 2}"),
    ("model_revision: main", "model: {name: tiny, revision: main}"),
    ("metric_for_best_model: eval_accuracy", "quality: {metric: accuracy}"),
    ("load_in_4bit: false\nfp16:\noptim: adamw_torch\ntrain_on_inputs: false\ndo_train: true\nflash_attention:\nloss_watchdog_threshold:", ""),
    ("optim: adamw_torch_fused", "train: {optimizer: adamw}"),
    ("optim: adamw_bnb_8bit", "train: {optimizer: adamw_8bit}"),
    ("optimizer: flash_adamw", "train: {optimizer: adamw_8bit_split}"),
    ("optimizer:\nadam_beta2: 0.99", "train: {beta2: 0.99}"),
    ("load_in_4bit: true", "cuts: {quantize: nf4}"),
    ("load_in_4bit: false\nload_in_8bit: true", "cuts: {quantize: {storage: int8, compute: bf16}}"),
    ("adapter: qlora", "cuts: {lora: true, quantize: true}"),
    ("adapter: qlora\nload_in_4bit: true\nbnb_4bit_quant_type: nf4", "cuts: {lora: true, quantize: {storage: nf4}}"),
    ("adapter: lora\nload_in_8bit: true", "cuts: {lora: true, quantize: int8}"),
    ("cuts: {quantize: off}", "cuts: {quantize: false}"),
    ("sequence_len:\nlora_r:\nlearning_rate:\ntrain:\nbudget: {}", ""),
    ("cuts: auto", ""),
    ("cuts: {lora: true, checkpoint: off}\nlora_r: 3", "cuts: {lora: {rank: 3}, checkpoint: false}"),
    ("machine: auto", "machine: {name: auto}"),
    ("machine: [h100, h200]", "machine: {name: [h100, h200]}"),
]  # fmt: skip


def without(canonical: str) -> str:
    """HEAD without the sections that `canonical` writes itself."""
    taken = {line.partition(":")[0] for line in canonical.splitlines()}
    return "".join(f"{line}\n" for line in HEAD.splitlines() if line.partition(":")[0] not in taken)


@pytest.mark.parametrize(("typed", "canonical"), ALIASES, ids=lambda text: text[:30])
def test_aliases_are_stored_in_the_one_canonical_form(typed: str, canonical: str) -> None:
    assert parse_recipe(HEAD + typed) == parse_recipe(without(canonical) + canonical)


def test_the_tables_of_aliases_are_covered_and_point_at_real_keys() -> None:
    homes = {**RENAMES, **IN_SECTION, **{name: special.home for name, special in SPECIAL.items()}}
    missing = {name: key for name, key in homes.items() if find_key(tuple(key.split("."))) is None}
    assert missing == {"gradient_accumulation_steps": "train.gradient_accumulation_steps"}
    assert not homes.keys() & Recipe.model_fields.keys()


def test_an_axolotl_recipe_reads_as_it_is() -> None:
    text = """
base_model: Qwen/Qwen3-0.6B
load_in_4bit: false
datasets:
  - path: chats.jsonl
    type: chat_template
    field_messages: talk
val_set_size: 0.05
output_dir: ./outputs/lora-out
adapter: lora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
sequence_len: 4096
sample_packing: true
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 0.0002
train_on_inputs: false
group_by_length: false
bf16: auto
tf32: false
gradient_checkpointing: true
resume_from_checkpoint:
logging_steps: 1
flash_attention:
warmup_steps: 10
evals_per_epoch: 1
weight_decay: 0.0
special_tokens:
task: sft
"""
    recipe = parse_recipe(text)
    assert recipe.model.name == "Qwen/Qwen3-0.6B"
    assert recipe.data.train == ("chats.jsonl",)
    assert recipe.data.columns.messages == "talk"
    assert recipe.cuts.lora == LoraWish(rank=32, alpha=16, dropout=0.05)
    assert (recipe.train.batch_size, recipe.train.warmup, recipe.cuts.checkpoint) == (8, 10, "full")


def test_datasets_must_agree_in_what_a_recipe_has_once() -> None:
    same = "model: x\ntask: text\ndatasets: [{path: a, split: train, name: en}, {path: b, split: train}, c.csv]"
    assert parse_recipe(same).data.train == ("a", "b", "c.csv")
    assert parse_recipe(same).data.subset == "en"
    with pytest.raises(InputError, match="found two values of split, but a recipe has one"):
        parse_recipe("model: x\ntask: text\ndatasets: [{path: a, split: train}, {path: b, split: test}]")


OVERRIDDEN = [
    ("train: {epochs: 3}", ["train.epochs=1e-1"], "train: {epochs: 0.1}"),
    ("cuts: {lora: {rank: 3}}", ["lora_r=8"], "cuts: {lora: {rank: 8}}"),
    ("lora_r: 3\nlora_alpha: 6", ["cuts.lora=false"], "cuts: {lora: false}"),
    ("adapter: none", ["cuts.lora.rank=4"], "cuts: {lora: {rank: 4}}"),
    ("lora_r: 3", ["cuts.lora={rank: 4}", "lora_alpha=8"], "cuts: {lora: {rank: 4, alpha: 8}}"),
    ("train: {epochs: 3}", ["max_steps=5"], "train: {max_steps: 5}"),
    ("train: {max_steps: 3}", ["num_epochs=5"], "train: {epochs: 5}"),
    ("train: {epochs: 5}", ["train.max_steps=null"], "train: {epochs: 5}"),
    ("micro_batch_size: 2\ngradient_accumulation_steps: 2", ["train.batch_size=6"], "train: {batch_size: 6, micro_batch_size: 2}"),
    ("micro_batch_size: 2\ngradient_accumulation_steps: 2", ["gradient_accumulation_steps=3"], "train: {batch_size: 6, micro_batch_size: 2}"),
    ("train: {seed: 1}", ["seed=2", "train.seed=3"], "train: {seed: 3}"),
    ("quality: {metric: accuracy, at_least: 0.5}", ["quality=null"], ""),
    ("", ["machine=[a, b]", "output.folder=x y", "cuts.checkpoint=off"], "machine: [a, b]\noutput: {folder: x y}\ncuts: {checkpoint: false}"),
    ("val_set_size: 0.1", ["data.eval=held.csv"], "data: {train: rows.jsonl, eval: held.csv}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "overrides", "same"), OVERRIDDEN, ids=lambda value: str(value)[:30])
def test_overrides_win(text: str, overrides: list[str], same: str) -> None:
    assert parse_recipe(HEAD + text, overrides=overrides) == parse_recipe(without(same) + same)


@pytest.mark.parametrize(
    "typed", [case[0] for case in ALIASES] + [case[1] for case in ALIASES], ids=lambda text: text[:30]
)
def test_round_trips(typed: str) -> None:
    recipe = parse_recipe(without(typed) + typed)
    assert parse_recipe(recipe_to_yaml(recipe)) == recipe
    assert recipe_from_dict(recipe.model_dump()) == recipe
    assert recipe_from_dict(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe_sha256(parse_recipe(recipe_to_yaml(recipe))) == recipe_sha256(recipe)


@pytest.mark.parametrize(
    "name",
    [
        "off",
        "no",
        "null",
        "1e5",
        "a: b",
        "- x",
        "#x",
        "'",
        "é ü",
        "\u202e",
        "~",
        "a\\b",
        "x " * 200 + "x",
        "!t",
        "&a",
        "*a",
        "2026-01-01",
    ],
)
def test_any_name_survives_yaml(name: str) -> None:
    recipe = recipe_from_dict({"model": name, "task": "text", "data": [name, "b"]})
    assert recipe.data.train == (name, "b")
    assert parse_recipe(recipe_to_yaml(recipe)) == recipe


def test_settings_of_cuts() -> None:
    recipe = parse_recipe(
        HEAD + "cuts: {lora: {}, checkpoint: {layers: 3, mlp_tiles: 8}, pack: {tokens: 64}, fuse: {loss_rows: 8}}"
    )
    assert recipe.cuts.lora == LoraWish()
    assert recipe.cuts.checkpoint == CheckpointWish(layers=3, mlp_tiles=8)
    assert recipe.cuts.pack == PackWish(tokens=64)
    assert recipe.cuts.fuse == FuseWish(loss_rows=8)
    assert recipe.cuts.fine_tune == "auto"


def test_recipes_are_frozen_and_their_hash_follows_every_setting() -> None:
    recipe = parse_recipe(HEAD)
    with pytest.raises(ValidationError):
        recipe.train.seed = 3  # type: ignore[misc]
    changed = [parse_recipe(HEAD, overrides=[one]) for one in ("train.seed=1", "tags=[a]", "task=text", "lora_r=16")]
    assert len({recipe_sha256(one) for one in (recipe, *changed)}) == 5
    assert recipe_sha256(parse_recipe(HEAD + "seed: 0 # the default")) == recipe_sha256(recipe)


def test_what_exists_beside_the_recipe_is_meant_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, elsewhere = tmp_path / "a", tmp_path / "b"
    for folder in (beside / "tiny", elsewhere):
        folder.mkdir(parents=True)
    (beside / "real.jsonl").touch()
    (beside / "rows.jsonl").symlink_to("real.jsonl")
    (elsewhere / "held.csv").touch()
    (beside / "held.csv").touch()
    (beside / "my first.yaml").write_text("\ufeff" + HEAD.replace("rows.jsonl", "[rows.jsonl, owner/name, gone.csv]"))
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(beside / "my first.yaml", ["data.eval=held.csv", "output.ledger=~/ledger"])
    assert recipe.model.name == str(beside / "tiny")
    assert recipe.data.train == (str(beside / "rows.jsonl"), "owner/name", "gone.csv")
    assert recipe.data.eval == (str(elsewhere / "held.csv"),)
    assert recipe.output.folder == "runs/my-first"
    assert recipe.output.ledger == str(Path.home() / "ledger")
    assert parse_recipe(HEAD).model.name == "tiny"


def test_the_schema_describes_every_key_and_what_is_typed() -> None:
    schema = recipe_json_schema()
    json.dumps(schema)
    described = [model["properties"] for model in schema["$defs"].values()] + [schema["properties"]]
    assert not [name for keys in described for name, key in keys.items() if not key.get("description")]
    assert schema["additionalProperties"] is False
    assert set(Recipe.model_fields) | {"lora_r", "base_model", "datasets", "fp16"} <= set(schema["properties"])


def test_every_key_can_say_what_it_expects() -> None:
    leaves = all_leaves()
    assert ("train", "learning_rate") in leaves and ("cuts", "lora", "rank") in leaves and ("cuts", "lora") in leaves
    assert all(len(expected(leaf)) > 8 for leaf in leaves)


def test_the_import_is_light() -> None:
    code = "import tenfold.recipe, sys; print([m for m in ('torch', 'numpy', 'rich', 'typer', 'jinja2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
