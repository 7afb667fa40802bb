"""LLaMA-Factory's names in tenfold's terms. Source: its hparams and data/README.md, version 0.9."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tenfold.recipe.aliases import WrongValueError
from tenfold.recipe.words import show
from tenfold.recipe.yaml_lines import Located

Translated = Iterator[tuple[str, Located]]

NO_MATTER = {
    "template": "the tokenizer's own chat template is used",
    "do_train": "",
    "overwrite_cache": "",
    "overwrite_output_dir": "",
    "preprocessing_num_workers": "",
    "dataloader_num_workers": "",
    "plot_loss": "",
    "ddp_timeout": "",
    "resume_from_checkpoint": "",
    "save_only_model": "",
}
"""Settings without an effect on what is computed; where one has a counterpart that behaves otherwise, it is named."""

LENGTH_KEYS = {"max_source_length", "max_target_length"}


def _stage(found: Located) -> Translated:
    tasks = {"sft": "sft", "pt": "text"}
    if found.value not in tasks:
        raise WrongValueError(f"found {show(found.value)}; tenfold has the stages sft and pt")
    yield "task", Located(tasks[str(found.value)], found.place)


def _finetuning_type(found: Located) -> Translated:
    if found.value not in ("lora", "full"):
        raise WrongValueError(f"found {show(found.value)}; tenfold has lora and full")
    yield "cuts.lora", Located(found.value == "lora", found.place)


def _lora_target(found: Located) -> Translated:
    value = found.value
    if value == "all" or value is None:
        yield "cuts.lora.targets", Located("all-linear", found.place)
    elif isinstance(value, str):
        names = tuple(Located(name.strip(), found.place) for name in value.split(","))
        yield "cuts.lora.targets", Located(names, found.place)
    else:
        yield "cuts.lora.targets", found


def _quantization_bit(found: Located) -> Translated:
    storages = {4: "nf4", 8: "int8"}
    if found.value is None:
        return
    if found.value not in storages:
        raise WrongValueError(f"found {show(found.value)}; tenfold has 4 and 8 bits")
    yield "cuts.quantize.storage", Located(storages[int(str(found.value))], found.place)


def _checkpointing_off(found: Located) -> Translated:
    yield "cuts.checkpoint", Located(False if found.value is True else "auto", found.place)


def _nothing(found: Located) -> Translated:
    yield from ()


LLAMA_FACTORY: Mapping[str, Callable[[Located], Translated]] = {
    "stage": _stage,
    "finetuning_type": _finetuning_type,
    "lora_rank": lambda found: iter((("cuts.lora.rank", found),)),
    "lora_target": _lora_target,
    "cutoff_len": lambda found: iter((("data.max_length", found),)),
    "max_samples": lambda found: iter((("data.max_rows", found),)),
    "val_size": lambda found: iter((("data.eval_fraction", found),)),
    "quantization_bit": _quantization_bit,
    "disable_gradient_checkpointing": _checkpointing_off,
    "neat_packing": lambda found: iter((("cuts.pack", found),)),
    "enable_liger_kernel": lambda found: iter((("cuts.fuse", found),)),
    "dataset": _nothing,
    "dataset_dir": _nothing,
    "eval_dataset": _nothing,
    **dict.fromkeys(NO_MATTER, _nothing),
}


def data_of(entries: Mapping[str, Located], folder: Path, ignored: list[str]) -> Translated:
    """The data files and columns that `dataset` means, by dataset_info.json beside them."""
    for key, target in (("dataset", "data.train"), ("eval_dataset", "data.eval")):
        named = entries.get(key)
        if named is None or named.value is None:
            continue
        names = [str(item.value) for item in named.items] if named.items is not None else str(named.value).split(",")
        where = entries.get("dataset_dir")
        base = folder / str(where.value if where is not None and where.value else "data")
        paths: list[Located] = []
        for name in (name.strip() for name in names):
            info = _info(base, name, named, ignored)
            paths.append(Located(str(base / info["file_name"]) if "file_name" in info else _hub_name(info, name),
                                 named.place))  # fmt: skip
            if target == "data.train":
                yield from _columns(info, named, ignored)
        yield target, Located(tuple(paths), named.place)


def _info(base: Path, name: str, found: Located, ignored: list[str]) -> dict[str, str]:
    """What dataset_info.json says of a dataset; a file of that name where it says nothing."""
    try:
        entry = json.loads((base / "dataset_info.json").read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        ignored.append(
            f"{found.place}: dataset: {base / 'dataset_info.json'} cannot be read; {name} is taken for a path"
        )
        return {"file_name": name} if (base / name).exists() else {}
    return entry if isinstance(entry, dict) else {}


def _hub_name(info: Mapping[str, str], name: str) -> str:
    return info.get("hf_hub_url") or name


def _columns(info: Mapping[str, object], found: Located, ignored: list[str]) -> Translated:
    """Columns of the formats alpaca and sharegpt."""
    given = info.get("columns")
    columns: Mapping[str, str] = given if isinstance(given, dict) else {}
    if info.get("formatting") == "sharegpt":
        yield "data.columns.messages", Located(columns.get("messages", "conversations"), found.place)
        return
    yield "data.columns.prompt", Located(columns.get("prompt", "instruction"), found.place)
    yield "data.columns.completion", Located(columns.get("response", "output"), found.place)
    if columns.get("query", "input"):
        ignored.append(f"{found.place}: dataset: the column {columns.get('query', 'input')} of alpaca rows is not read")
