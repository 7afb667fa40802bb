"""Where the tensors of a safetensors file stand, by its header: 8 bytes of length, JSON, then the tensors' bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import InputError

LONGEST_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file."""

    dtype: str
    """As the format calls it: "BF16"."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    end: int
    """The byte after its last."""


def stored_tensors(path: Path) -> Mapping[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order of its header. Raises InputError if that is damaged."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER_BYTES:
                raise InputError(f"{path}: not a safetensors file, its header claims {length:,} bytes")
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged safetensors header; download the file again") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: damaged safetensors header; download the file again")
    found: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            shape, (start, end) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
            if not 0 <= start <= end:
                raise ValueError("no range of bytes")
            found[name] = StoredTensor(str(entry["dtype"]), shape, 8 + length + start, 8 + length + end)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: damaged safetensors header at {name!r}; download the file again") from error
    return found
