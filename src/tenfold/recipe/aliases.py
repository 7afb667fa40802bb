"""Names that users of transformers' TrainingArguments, TRL's SFTConfig and Axolotl type, in tenfold's terms.

An alias may stand at the top level or in any section on the way to its canonical key: `lora_r` at the top, in `cuts`
or in `cuts.lora`. Names and meanings: transformers 5 `training_args.py`, TRL 1 `sft_config.py` and `model_config.py`,
PEFT `lora/config.py`, Axolotl's `examples/llama-3/qlora.yml` and its config schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tenfold.recipe.words import join_or, show
from tenfold.recipe.yaml_lines import Located

Meaning = Iterator[tuple[str, Located]]
"""What an alias says: canonical keys and their values. Nothing at all: it asks for what happens anyway."""

ACCUMULATION = "train.gradient_accumulation_steps"
"""No key of the schema: with it, train.batch_size = train.micro_batch_size x this."""


class WrongValueError(Exception):
    """An alias has a value that it cannot have, or that tenfold cannot serve; the text says what to write instead."""


RENAMES: Mapping[str, str] = {
    "base_model": "model.name",
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "revision_of_model": "model.revision",
    "train_file": "data.train",
    "dataset_name": "data.train",
    "validation_file": "data.eval",
    "dataset_config": "data.subset",
    "dataset_config_name": "data.subset",
    "dataset_train_split": "data.split",
    "dataset_text_field": "data.columns.text",
    "text_column_name": "data.columns.text",
    "label_column_name": "data.columns.label",
    "val_set_size": "data.eval_fraction",
    "sequence_len": "data.max_length",
    "max_length": "data.max_length",
    "max_seq_length": "data.max_length",
    "max_train_samples": "data.max_rows",
    "budget_usd": "budget.usd",
    "budget_hours": "budget.hours",
    "usd_per_hour": "machine.usd_per_hour",
    "lora_r": "cuts.lora.rank",
    "lora_alpha": "cuts.lora.alpha",
    "lora_dropout": "cuts.lora.dropout",
    "use_rslora": "cuts.lora.rslora",
    "peft_use_rslora": "cuts.lora.rslora",
    "use_peft": "cuts.lora",
    "packing": "cuts.pack",
    "sample_packing": "cuts.pack",
    "use_liger_kernel": "cuts.fuse",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "train_batch_size": "train.batch_size",
    "micro_batch_size": "train.micro_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": ACCUMULATION,
    "learning_rate": "train.learning_rate",
    "lr": "train.learning_rate",
    "warmup_steps": "train.warmup",
    "weight_decay": "train.weight_decay",
    "adam_beta1": "train.beta1",
    "adam_beta2": "train.beta2",
    "adam_epsilon": "train.epsilon",
    "seed": "train.seed",
    "eval_steps": "train.eval_every_steps",
    "save_steps": "train.save_every_steps",
    "logging_steps": "train.log_every_steps",
    "save_total_limit": "train.keep_checkpoints",
    "output_dir": "output.folder",
    "tags": "output.tags",
}


@dataclass(frozen=True)
class Special:
    """An alias whose value has to be translated."""

    home: str
    """The key or section it speaks of."""
    translate: Callable[[Located], Meaning]


@dataclass(frozen=True)
class Needless:
    """A name that asks for what tenfold does anyway, if it has one of `harmless`; else refused with the advice."""

    harmless: tuple[object, ...]
    advice: str


def _adapter(found: Located) -> Meaning:
    if found.value not in ("lora", "qlora", "none", "", None):
        raise WrongValueError(f"found {show(found.value)}, expected lora, qlora or none")
    yield "cuts.lora", Located(found.value in ("lora", "qlora"), found.place)
    if found.value == "qlora":  # a plain true gives way to load_in_4bit or load_in_8bit beside it
        yield "cuts.quantize", Located(True, found.place)


def _load_in_4bit(found: Located) -> Meaning:
    if _flag(found):
        yield "cuts.quantize.storage", Located("nf4", found.place)


def _load_in_8bit(found: Located) -> Meaning:
    if _flag(found):
        yield "cuts.quantize.storage", Located("int8", found.place)


def _targets(found: Located) -> Meaning:
    if [item.value for item in found.items or ()] == ["all-linear"]:
        yield "cuts.lora.targets", Located("all-linear", found.place)
    elif found.value is not None:
        yield "cuts.lora.targets", found


def _target_linear(found: Located) -> Meaning:
    if _flag(found):
        yield "cuts.lora.targets", Located("all-linear", found.place)


def _gradient_checkpointing(found: Located) -> Meaning:
    flag = _flag(found)
    if flag is not None:
        yield "cuts.checkpoint", Located("full" if flag else False, found.place)


def _max_steps(found: Located) -> Meaning:
    if found.value != -1 or isinstance(found.value, bool):
        yield "train.max_steps", found


def _max_grad_norm(found: Located) -> Meaning:
    off = found.value == 0 and not isinstance(found.value, bool)
    yield "train.max_grad_norm", Located(None, found.place) if off else found


def _warmup_ratio(found: Located) -> Meaning:
    value = found.value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise WrongValueError(f"found {show(value)}, expected a number of at least 0 and below 1, e.g. 0.03")
    yield "train.warmup", found


def _schedule(found: Located) -> Meaning:
    same = found.value == "constant_with_warmup"
    yield "train.schedule", Located("constant", found.place) if same else found


def _bf16(found: Located) -> Meaning:
    if found.value == "auto" or found.value == "full":
        yield "train.dtype", Located("auto" if found.value == "auto" else "bfloat16", found.place)
    elif (flag := _flag(found, "true, false or auto")) is not None:
        yield "train.dtype", Located("bfloat16" if flag else "float32", found.place)


def _dtype(found: Located) -> Meaning:
    names = {"bf16": "bfloat16", "fp32": "float32", "torch.bfloat16": "bfloat16", "torch.float32": "float32"}
    value = found.value
    yield "train.dtype", Located(names.get(value, value) if isinstance(value, str) else value, found.place)


def _eval_strategy(found: Located) -> Meaning:
    if found.value in ("no", False):
        yield "data.eval_fraction", Located(0, found.place)
    elif found.value not in ("epoch", "steps", None):
        raise WrongValueError(f"found {show(found.value)}, expected epoch, steps (with eval_steps) or no")


def _report_to(found: Located) -> Meaning:
    if found.value in ("none", "", None):
        yield "output.trackers", Located((), found.place)
    else:
        yield "output.trackers", Located((found,), found.place) if isinstance(found.value, str) else found


def _metric(found: Located) -> Meaning:
    name = found.value.removeprefix("eval_") if isinstance(found.value, str) else found.value
    yield "quality.metric", Located(name, found.place)


OPTIMIZERS: Mapping[str, str] = {
    "adamw": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_torch_8bit": "adamw_8bit",
    "adamw_8bit_split": "adamw_8bit_split",
    "flash_adamw": "adamw_8bit_split",
}
"""Names of one algorithm in transformers, Axolotl and FlashOptim."""


def _optimizer(found: Located) -> Meaning:
    name = found.value
    if name is None:
        return
    if isinstance(name, str) and name.startswith("paged_adamw"):
        raise WrongValueError(f"found {show(name)}; tenfold does not page an optimizer to the host, write adamw_8bit")
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise WrongValueError(f"found {show(name)}, expected {join_or(list(OPTIMIZERS))}")
    yield "train.optimizer", Located(OPTIMIZERS[name], found.place)


def _flag(found: Located, words: str = "true or false") -> bool | None:
    if found.value is None or isinstance(found.value, bool):
        return found.value
    raise WrongValueError(f"found {show(found.value)}, expected {words}")


DATASET_KEYS: Mapping[str, str] = {
    "path": "",
    "split": "data.split",
    "name": "data.subset",
    "field": "data.columns.text",
    "field_messages": "data.columns.messages",
}
DATASET_TYPES = ("chat_template", "completion", None)
"""Axolotl's types whose columns are tenfold's own."""


def _datasets(found: Located) -> Meaning:
    yield from _entries(found, "data.train")


def _test_datasets(found: Located) -> Meaning:
    yield from _entries(found, "data.eval")


def _entries(found: Located, target: str) -> Meaning:
    """Axolotl's list of `{path, type, ...}`; settings of the datasets must agree, since a recipe has them once."""
    entries = found.items if found.items is not None else (found,)
    paths: list[Located] = []
    settings: dict[str, Located] = {}
    for entry in entries:
        if entry.entries is None:
            paths.append(entry)
            continue
        if "path" not in entry.entries:
            raise WrongValueError("found a dataset without path, expected e.g. [{path: train.jsonl}]")
        for name, value in entry.entries.items():
            _check_entry(name, value)
            key = DATASET_KEYS.get(name)
            if key == "":
                paths.append(value)
            elif key is not None and settings.setdefault(key, value).value != value.value:
                raise WrongValueError(f"found two values of {name}, but a recipe has one {key}; make them equal")
    yield target, Located(tuple(paths), found.place)
    yield from settings.items() if target == "data.train" else ()


def _check_entry(name: str, value: Located) -> None:
    if name == "type" and value.value not in DATASET_TYPES:
        raise WrongValueError(
            f"found type {show(value.value)}; remove it and name the columns in data.columns, "
            "tenfold reads text, prompt and completion, messages, or text and label"
        )
    if name not in DATASET_KEYS and name not in ("type", "ds_type"):
        raise WrongValueError(f"found {show(name)} in a dataset, expected {join_or([*DATASET_KEYS, 'type'])}")


SPECIAL: Mapping[str, Special] = {
    "datasets": Special("data.train", _datasets),
    "test_datasets": Special("data.eval", _test_datasets),
    "adapter": Special("cuts.lora", _adapter),
    "load_in_4bit": Special("cuts.quantize.storage", _load_in_4bit),
    "load_in_8bit": Special("cuts.quantize.storage", _load_in_8bit),
    "lora_target_modules": Special("cuts.lora.targets", _targets),
    "target_modules": Special("cuts.lora.targets", _targets),
    "lora_target_linear": Special("cuts.lora.targets", _target_linear),
    "gradient_checkpointing": Special("cuts.checkpoint", _gradient_checkpointing),
    "max_steps": Special("train.max_steps", _max_steps),
    "max_grad_norm": Special("train.max_grad_norm", _max_grad_norm),
    "warmup_ratio": Special("train.warmup", _warmup_ratio),
    "lr_scheduler": Special("train.schedule", _schedule),
    "lr_scheduler_type": Special("train.schedule", _schedule),
    "bf16": Special("train.dtype", _bf16),
    "dtype": Special("train.dtype", _dtype),
    "torch_dtype": Special("train.dtype", _dtype),
    "eval_strategy": Special("data.eval_fraction", _eval_strategy),
    "evaluation_strategy": Special("data.eval_fraction", _eval_strategy),
    "optim": Special("train.optimizer", _optimizer),
    "optimizer": Special("train.optimizer", _optimizer),
    "report_to": Special("output.trackers", _report_to),
    "metric_for_best_model": Special("quality.metric", _metric),
}

IN_SECTION: Mapping[str, str] = {"r": "cuts.lora.rank"}
"""PEFT's name, too short to stand anywhere but in its own section."""

_DOUBLE_NF4 = "nf4 is always doubly quantized; remove it"
_MICRO_BATCH = "evaluation uses train.micro_batch_size; remove it"
_WHOLE_GROUPS = "heads that share keys and values go together; write cuts.warm_start.num_attention_heads"
_ON_SPIKE = "a loss is held against those before it; write train.on_loss_spike: stop"
_OWN_CODE = "it is read from the model's config.json; remove it"

NEEDLESS: Mapping[str, Needless] = {
    "bnb_4bit_quant_type": Needless(("nf4", None), "tenfold has no other 4-bit format than nf4; remove it"),
    "bnb_4bit_use_double_quant": Needless((True, None), _DOUBLE_NF4),
    "use_bnb_nested_quant": Needless((True, None), _DOUBLE_NF4),
    "fp16": Needless((False, None), "tenfold has no float16; write bf16: true or train.dtype: auto"),
    "tf32": Needless((False, None), "tenfold computes in float32 or bfloat16; write train.dtype"),
    "train_on_inputs": Needless((False, None), "task sft learns completions only; write task: text for all tokens"),
    "completion_only_loss": Needless((True, None), "task sft learns completions only; write task: text for all tokens"),
    "assistant_only_loss": Needless((True, None), "task sft learns answers only; write task: text for all tokens"),
    "trust_remote_code": Needless((False, None), "tenfold never runs code that comes with a model; remove it"),
    "push_to_hub": Needless((False, None), "tenfold uploads nothing; remove it"),
    "group_by_length": Needless((False, None), "rows keep their order and cuts.pack saves the padding; remove it"),
    "pad_to_sequence_len": Needless((False, None), "cuts.pack lays rows end to end without padding; remove it"),
    "num_key_value_heads": Needless((None,), _WHOLE_GROUPS),
    "do_train": Needless((True, None), "tenfold train trains, tenfold plan does not; remove it"),
    "do_eval": Needless((True, None), "write data.eval_fraction: 0 to turn evaluation off"),
    "load_best_model_at_end": Needless((True, False, None), "the best and the last adapter are both kept; remove it"),
    "overwrite_output_dir": Needless((False, None), "tenfold overwrites no run; name another output.folder"),
    "resume_from_checkpoint": Needless((True, None), "tenfold train continues by itself; remove it"),
    "save_strategy": Needless(("steps", "no", None), "write train.save_every_steps"),
    "logging_strategy": Needless(("steps", None), "write train.log_every_steps"),
    "evals_per_epoch": Needless((1, None), "write train.eval_every_steps"),
    "saves_per_epoch": Needless((None,), "write train.save_every_steps"),
    "strict": Needless((False, None), "unknown keys are always refused; remove it"),
    **{f"loss_watchdog_{name}": Needless((None,), _ON_SPIKE) for name in ("threshold", "patience")},
    "deepspeed": Needless((None,), "tenfold does not use DeepSpeed; remove it"),
    "fsdp": Needless((None,), "tenfold trains in one process; remove it"),
    "fsdp_config": Needless((None,), "tenfold trains in one process; remove it"),
    "special_tokens": Needless((None,), "the tokenizer's own special tokens are used; remove it"),
    "chat_template": Needless(("tokenizer_default", None), "the tokenizer's own chat template is used; remove it"),
    "attn_implementation": Needless(("sdpa", None), "tenfold uses PyTorch's scaled_dot_product_attention; remove it"),
    "flash_attention": Needless((False, None), "tenfold uses PyTorch's scaled_dot_product_attention; remove it"),
    "per_device_eval_batch_size": Needless((None,), _MICRO_BATCH),
    "eval_batch_size": Needless((None,), _MICRO_BATCH),
    "model_type": Needless((None,), _OWN_CODE),
    "tokenizer_type": Needless((None,), _OWN_CODE),
    "num_labels": Needless((None,), "labels are counted in the data; remove it"),
    "run_name": Needless((None,), "output.folder names the run; remove it"),
    "wandb_project": Needless((None,), "set WANDB_PROJECT in the environment; remove it"),
    "wandb_entity": Needless((None,), "set WANDB_ENTITY in the environment; remove it"),
    "hub_model_id": Needless((None,), "tenfold uploads nothing; remove it"),
}


def translate(name: str, found: Located, section: str) -> Meaning | None:
    """What the alias `name` means in `section` ("" is the top level); None if it is no alias there.

    Raises WrongValueError.
    """
    if name in NEEDLESS and not section:
        needless = NEEDLESS[name]
        if not any(found.value == value and type(found.value) is type(value) for value in needless.harmless):
            raise WrongValueError(f"found {show(found.value)}; {needless.advice}")
        return iter(())
    home = home_of(name)
    if home is None or (section and not f"{home}.".startswith(f"{section}.")):
        return None
    if name in IN_SECTION and section != home.rpartition(".")[0]:
        return None
    if name in SPECIAL:
        return SPECIAL[name].translate(found)
    return iter(((home, found),))


def home_of(name: str) -> str | None:
    """The canonical key that an alias speaks of."""
    if name in SPECIAL:
        return SPECIAL[name].home
    return RENAMES.get(name) or IN_SECTION.get(name)


def aliases_in(section: str) -> list[str]:
    """All aliases that may stand in `section`; "" is the top level."""
    names = [*RENAMES, *SPECIAL]
    return [name for name in names if not section or f"{home_of(name)}.".startswith(f"{section}.")]
