"""Which weights an adapter belongs to: a hash over the tensors of the base, independent of how they are sharded."""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path

from tenfold.errors import InputError
from tenfold.hub import CONFIG, CONFIG_SECONDS, INDEX, OutOfReach, fetch, fetch_weights, hub

CHUNK_BYTES = 64 * 2**20
"""Bytes hashed at once: large enough for full speed, small beside any model."""


def base_sha256(folder: Path) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor in the safetensors files of `folder`, by name.

    Raises InputError if there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no *.safetensors file; tenfold reads no pickled weights, convert them first")
    tensors = {name: (path, entry) for path in files for name, entry in _entries(path).items()}
    total = hashlib.sha256()
    for name in sorted(tensors):
        path, (dtype, shape, start, end) = tensors[name]
        total.update(json.dumps([name, dtype, shape]).encode())
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            for offset in range(start, end, CHUNK_BYTES):
                total.update(view[offset : min(end, offset + CHUNK_BYTES)])
            view.release()
    return total.hexdigest()


def _entries(path: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Of each tensor: dtype, shape, first byte and end in the file (format: 8 bytes header length, JSON, data)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
        except (ValueError, MemoryError, OverflowError) as error:
            raise InputError(f"{path}: not a safetensors file, its header cannot be read") from error
    data = 8 + length
    return {
        name: (entry["dtype"], entry["shape"], data + entry["data_offsets"][0], data + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder on disk that holds the files of a model: itself, or its snapshot in the Hugging Face cache.

    What the cache lacks of its weights is downloaded. Raises InputError if that cannot be done.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        found = fetch(name, CONFIG, revision, CONFIG_SECONDS)
        if found is not None:
            fetch_weights(name, found.parent)
            return found.parent
    except OutOfReach as error:
        raise InputError(f"model: {name!r}: its weights cannot be had: {hub()} {error}; run this again") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"model: {name!r}: its {INDEX} is no index of weight files; choose another revision") from None
    raise InputError(f"model: {name!r} is neither a folder nor a model on the Hugging Face hub or in its cache")
