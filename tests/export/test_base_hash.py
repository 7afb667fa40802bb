"""The hash of a base, computed beside: the same number, and what is wrong is said where it is asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tenfold.errors import InputError
from tenfold.export.base_hash import BaseHash, base_sha256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files, hashed in pieces of 64 bytes."""
    monkeypatch.setattr("tenfold.export.base_hash.CHUNK_BYTES", 64)
    save_file({"b": torch.arange(50.0), "d": torch.ones(2, 3).bfloat16()}, tmp_path / "one.safetensors")
    save_file({"a": torch.arange(7), "c": torch.zeros(0)}, tmp_path / "two.safetensors")
    return tmp_path


def test_is_what_its_definition_says(folder: Path) -> None:
    total = hashlib.sha256()
    for name, dtype, tensor in (
        ("a", "I64", torch.arange(7)),
        ("b", "F32", torch.arange(50.0)),
        ("c", "F32", torch.zeros(0)),
        ("d", "BF16", torch.ones(2, 3).bfloat16()),
    ):
        total.update(json.dumps([name, dtype, list(tensor.shape)]).encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    assert base_sha256(folder) == BaseHash(folder).sha256 == total.hexdigest()
    file = folder / "one.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert BaseHash(folder).sha256 != total.hexdigest(), "the control: one byte"


def test_only_a_folder_with_weights_is_begun_before_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    begun = BaseHash.begun(str(folder))
    assert begun is not None and begun.folder == folder and begun.sha256 == base_sha256(folder)
    (tmp_path / "empty").mkdir()
    assert BaseHash.begun(str(tmp_path / "empty")) is None
    assert BaseHash.begun("somebody/something") is None
    with pytest.raises(InputError, match=r"no \*\.safetensors file"):
        BaseHash(tmp_path / "empty")


def test_a_file_that_ends_too_early_is_said_where_the_hash_is_needed(folder: Path) -> None:
    file = folder / "one.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    found = BaseHash(folder)
    with pytest.raises(InputError, match=r"one\.safetensors: ends before its tensor 'd' does; download the file again"):
        _ = found.sha256
