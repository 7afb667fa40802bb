"""Ways to spoil a work folder: each is a function of the folder, made by a function that says what to spoil."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from command_line import edit_json, write_recipe

Change = Callable[[Path], object]


def wish(changes: dict[str, Any]) -> Change:
    return lambda folder: write_recipe(folder, changes)


def put(name: str, content: str | bytes) -> Change:
    """Replace a file."""
    data = content if isinstance(content, bytes) else content.encode()

    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return change


def remove(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def recode(name: str, encoding: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_text().encode(encoding))


def add(name: str, text: str | bytes) -> Change:
    """Append to a file."""
    data = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + data)


def cut(name: str, keep: float) -> Change:
    """Keep only the first part of a file."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return change


def config(**changes: Any) -> Change:
    return lambda folder: edit_json(folder / "base" / "config.json", **changes)


def settings(name: str, **changes: Any) -> Change:
    return lambda folder: edit_json(folder / name, **changes)


def header(entries: dict[str, Any]) -> bytes:
    """A safetensors file that is only its header."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def nothing(folder: Path) -> None:
    pass


def other_weights(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def other_names(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    save_file(
        {f"transformer.{key}": tensor for key, tensor in load_file(path).items()}, path, metadata={"format": "pt"}
    )


def pickled(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    torch.save(load_file(path), folder / "base" / "pytorch_model.bin")
    path.unlink()


def big_model(folder: Path) -> None:
    """An 8B model of which there is only the configuration."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    edit_json(folder / "base" / "config.json", **sizes, num_key_value_heads=8, head_dim=128, vocab_size=128256)
    (folder / "base" / "model.safetensors").unlink()


def big_vocabulary(folder: Path) -> None:
    path = folder / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] |= {f"w{number}": 1000 + number for number in range(100)}
    path.write_text(json.dumps(tokenizer))


def other_database(folder: Path) -> None:
    with sqlite3.connect(folder / "other.sqlite") as database:
        database.execute("CREATE TABLE accounts (id)")
    database.close()


def damage_states(*names: str) -> Change:
    return both(*(cut(f"done/checkpoints/{name}/tensors-00001.safetensors", 0.5) for name in names))


def damaged_chain(folder: Path) -> None:
    text = (folder / "done" / "receipt.json").read_text()
    (folder / "done" / "receipt.json").write_text(text.replace('"schema_version": 1', '"schema_version": 99', 1))
