"""Saved states: everything that continuing a run needs, in files that prove themselves undamaged.

A state is a folder `step-00000120` with `tensors-*.safetensors`, `state.json` and `manifest.json`. The manifest holds
size and SHA-256 of every file and a hash over itself. That finds every accident: truncated, flipped, swapped, missing
and added files. It does not find an attacker who rewrites the hashes too; but nothing is pickled: no file can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save_file

from tenfold import __version__
from tenfold.durable import recover, remove_folder, sync_tree, write_folder
from tenfold.errors import InputError, TenfoldError
from tenfold.inert import printable

SCHEMA_VERSION = 1
MANIFEST, STATE = "manifest.json", "state.json"

_SHARD_BYTES = 2 * 2**30
"""Tensors are copied to host memory one file at a time: this bounds the copy, unless a single tensor is larger."""

_READ_BYTES = 2**20
_NAME = re.compile(r"step-\d{8,}")


@dataclass(frozen=True)
class SavedState:
    """A verified state. `state` is what `save_state` was given; `skipped` has a line for each newer, damaged one."""

    step: int
    folder: Path
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()


class _File(BaseModel, frozen=True, extra="forbid", strict=True):
    size_bytes: int
    sha256: str


class _Manifest(BaseModel, frozen=True, extra="forbid", strict=True):
    schema_version: int
    created_by: str
    step: int
    files: dict[str, _File]


class _DamagedError(Exception):
    """Which file of a state is damaged, and how."""


def save_state(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write a state to `folder`, read it back, then delete all but the newest `keep`; return its path.

    `tensors` has flat names such as "optimizer/0/exp_avg"; `state` is JSON (NaN and Inf allowed). A state that cannot
    be deleted stays, and the next save tries again. Raises TenfoldError if it cannot be written or reads back
    differently; what was there is then untouched.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, but the state just written must stay")
    body = (json.dumps(state, indent=1) + "\n").encode()
    target = folder / f"step-{step:08d}"
    recover(folder)
    with write_folder(target, len(body) + sum(tensor.nbytes for tensor in tensors.values())) as writing:
        for number, shard in enumerate(_shards(tensors), start=1):
            save_file(_host_copies(shard), writing / f"tensors-{number:05d}.safetensors")
        (writing / STATE).write_bytes(body)
        (writing / MANIFEST).write_bytes(_render(_manifest(writing, step)))
        sync_tree(writing)
        try:
            _verify(writing, step)
        except _DamagedError as damage:
            raise TenfoldError(f"{printable(str(target))}: reads back differently than written: {damage}") from None
    _retain(folder, step, keep)
    return target


def newest_state(folder: Path) -> SavedState | None:
    """The newest state in `folder` whose every byte is as it was written; None if nothing was ever saved.

    Raises InputError if there are states but all are damaged, or one was written by a newer tenfold: training that
    starts over without a word would be worse than stopping.
    """
    recover(folder)
    faults: list[tuple[str, str]] = []
    for step, path in _states(folder):
        try:
            state = _verify(path, step)
        except _DamagedError as damage:
            faults.append((path.name, str(damage)))
            continue
        skipped = tuple(f"{folder.name}/{name}: {fault}; using {path.name}" for name, fault in faults)
        return SavedState(step, path, state, skipped)
    if not faults:
        return None
    listed = "; ".join(f"{name}: {fault}" for name, fault in faults)
    raise InputError(
        f"{printable(str(folder))}: no saved state is usable ({listed}); put back a copy, or delete this folder to"
        " start over"
    )


def load_tensors(saved: SavedState, device: torch.device | str) -> dict[str, torch.Tensor]:
    """All tensors of a verified state, under the names they were saved by, on `device`."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(saved.folder.glob("tensors-*.safetensors")):
        with safe_open(path, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name)
                # On the CPU it is a view of the mapped file, which retention may delete while training goes on.
                tensors[name] = tensor.clone() if tensor.device.type == "cpu" else tensor
    return tensors


def rng_state() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The state of every random generator in use: Python's and NumPy's as JSON, PyTorch's as uint8 tensors."""
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(internal), gauss]}
    if "numpy" in sys.modules:
        import numpy

        kind, keys, position, has_gauss, cached = cast("tuple[Any, ...]", numpy.random.get_state())
        state["numpy"] = [kind, keys.tolist(), position, has_gauss, cached]
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda-{number}": value for number, value in enumerate(torch.cuda.get_rng_state_all())}
    return state, tensors


def restore_rng(state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Set every generator to what `rng_state` returned; return the names of those that this computer does not have."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    absent: list[str] = []
    if "numpy" in state:
        try:
            import numpy
        except ModuleNotFoundError:
            absent.append("numpy")
        else:
            kind, keys, position, has_gauss, cached = state["numpy"]
            numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for name, value in tensors.items():
        if name == "torch":
            torch.set_rng_state(value.cpu())
        elif (number := int(name.removeprefix("cuda-"))) < devices:
            torch.cuda.set_rng_state(value.cpu(), number)
        else:
            absent.append(name)
    return tuple(absent)


def _shards(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size_bytes = 0
    for name, tensor in tensors.items():
        if shard and size_bytes + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard, size_bytes = {}, 0
        shard[name] = tensor
        size_bytes += tensor.nbytes
    if shard:
        yield shard


def _host_copies(shard: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, no two sharing memory."""
    copies: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in shard.items():
        copy = tensor.detach().cpu().contiguous()
        address = copy.untyped_storage().data_ptr()
        copies[name] = copy.clone() if address in seen else copy
        seen.add(address)
    return copies


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    files = {
        path.name: _File(size_bytes=path.stat().st_size, sha256=_sha256(path)) for path in sorted(folder.iterdir())
    }
    created_by = f"tenfold {__version__}"
    manifest = _Manifest(schema_version=SCHEMA_VERSION, created_by=created_by, step=step, files=files)
    return manifest.model_dump()


def _render(manifest: Mapping[str, Any]) -> bytes:
    """The one way to write a manifest, with its own hash; every later version must keep it, to be told from damage."""
    body = json.dumps(manifest, indent=1, sort_keys=True).encode()
    whole = {**manifest, "manifest_sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(whole, indent=1, sort_keys=True).encode() + b"\n"


def _states(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every state in `folder`, newest first, damaged or not."""
    try:
        paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{printable(str(folder))}: cannot be read: {error.strerror}") from error
    return sorted(((int(path.name.removeprefix("step-")), path) for path in paths), reverse=True)


def _verify(folder: Path, step: int, *, contents: bool = True) -> dict[str, Any]:
    """Compare every file in `folder` with its manifest, without `contents` only their sizes; return what it saved.

    Raises _DamagedError naming the first bad file, or InputError for a newer schema.
    """
    if not folder.is_dir():
        raise _DamagedError("not a folder")
    try:
        manifest = _read_manifest(folder)
        if manifest.step != step:
            raise _DamagedError(f"{MANIFEST}: belongs to step {manifest.step} (folder copied or renamed)")
        there = {path.name for path in folder.iterdir()}
        for name in sorted((there | manifest.files.keys() | {STATE}) - {MANIFEST}):
            if name not in there:
                raise _DamagedError(f"{printable(name)}: missing")
            if name not in manifest.files:
                raise _DamagedError(f"{printable(name)}: not in the manifest (file added)")
            _verify_file(folder / name, manifest.files[name], contents=contents)
        return json.loads((folder / STATE).read_bytes())
    except OSError as error:
        where = "" if error.filename is None else f"{printable(Path(error.filename).name)}: "
        raise _DamagedError(f"{where}cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise _DamagedError(f"{STATE}: not JSON") from None


def _verify_file(path: Path, expected: _File, *, contents: bool) -> None:
    """Raises _DamagedError, or OSError."""
    if not path.is_file():
        raise _DamagedError(f"{printable(path.name)}: not a file")
    size_bytes = path.stat().st_size
    if size_bytes != expected.size_bytes:
        raise _DamagedError(f"{path.name}: {size_bytes:,} bytes instead of {expected.size_bytes:,} (file damaged)")
    if contents and _sha256(path) != expected.sha256:
        raise _DamagedError(f"{path.name}: SHA-256 differs (file damaged)")


def _read_manifest(folder: Path) -> _Manifest:
    """Raises _DamagedError, InputError for a newer schema, or OSError."""
    if not (folder / MANIFEST).is_file():
        raise _DamagedError(f"{MANIFEST}: missing")
    content = (folder / MANIFEST).read_bytes()
    try:
        found = json.loads(content)
        del found["manifest_sha256"]
        if _render(found) != content:
            raise ValueError
        if found["schema_version"] > SCHEMA_VERSION:
            raise InputError(
                f"{printable(str(folder))}: saved by {printable(str(found.get('created_by')))} in format"
                f" {found['schema_version']}, this tenfold reads up to {SCHEMA_VERSION}; upgrade tenfold to continue"
            )
        return _Manifest.model_validate(found)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _DamagedError(f"{MANIFEST}: differs from its own hash (file damaged)") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        if sys.platform == "linux":
            # Forget clean cached pages, so that what is on the disk is read, not what was meant to be.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _retain(folder: Path, step: int, keep: int) -> None:
    """Delete states until `keep` are left, the verified one of `step` among them; damaged ones do not count."""
    kept = 1
    for other, path in _states(folder):
        if other > step:
            # Newer than the one just written: it was skipped as damaged when this run continued.
            if not _is_sound(path, other, contents=True):
                remove_folder(path)
        elif other < step:
            if kept < keep and _is_sound(path, other, contents=False):
                kept += 1
            else:
                remove_folder(path)


def _is_sound(folder: Path, step: int, *, contents: bool) -> bool:
    try:
        _verify(folder, step, contents=contents)
    except _DamagedError:
        return False
    except InputError:
        return True  # of a newer tenfold: not ours to judge
    return True
