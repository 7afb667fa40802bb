"""Which weights an adapter belongs to: a hash over the tensors of the base, independent of how they are sharded."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread

from tenfold.errors import InputError
from tenfold.hub import CONFIG, CONFIG_SECONDS, INDEX, OutOfReach, fetch, fetch_weights, hub
from tenfold.shape.headers import StoredTensor, stored_tensors

CHUNK_BYTES = 32 * 2**20
"""Bytes hashed at once: small beside any large model, and long enough (18 ms at 1.8 GB/s) that a thread which has to
wait up to 5 ms for Python's lock between two of them hardly feels it."""


class BaseHash:
    """The hash of the weights in a folder, computed beside what else a run does: it is needed when something is saved.

    It reads every byte of the weights, and so brings those that lie on a disk into the system's cache before they are
    loaded. Holds `CHUNK_BYTES` at most. Raises InputError where there are no weights, or files whose headers cannot be
    read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sha256: Future[str] = Future()
        tensors = _tensors(folder)
        # A daemon, so that a run which is stopped need not wait for its end.
        Thread(target=self._compute, args=(tensors,), name="tenfold hash", daemon=True).start()

    @classmethod
    def begun(cls, name: str) -> BaseHash | None:
        """That of a model which is a folder here; None where something would have to be asked or refused first."""
        if not Path(name).is_dir():
            return None
        with suppress(InputError):
            return cls(Path(name))
        return None

    @property
    def sha256(self) -> str:
        """The hash, once it is there. Raises InputError if a file could not be read to its end."""
        return self._sha256.result()

    def _compute(self, tensors: dict[str, tuple[Path, StoredTensor]]) -> None:
        try:
            self._sha256.set_result(_hash(tensors))
        except BaseException as error:
            self._sha256.set_exception(error)


def base_sha256(folder: Path) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor in the safetensors files of `folder`, by name.

    Raises InputError if there are none.
    """
    return _hash(_tensors(folder))


def _tensors(folder: Path) -> dict[str, tuple[Path, StoredTensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no *.safetensors file; tenfold reads no pickled weights, convert them first")
    return {name: (path, tensor) for path in files for name, tensor in stored_tensors(path).items()}


def _hash(tensors: dict[str, tuple[Path, StoredTensor]]) -> str:
    total = hashlib.sha256()
    largest = max((tensor.end - tensor.start for _, tensor in tensors.values()), default=0)
    buffer = memoryview(bytearray(min(CHUNK_BYTES, largest)))
    for name in sorted(tensors):
        path, tensor = tensors[name]
        total.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode())
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(tensor.start)
                left = tensor.end - tensor.start
                while left:
                    count = file.readinto(buffer[:left])
                    if not count:
                        raise InputError(f"{path}: ends before its tensor {name!r} does; download the file again")
                    total.update(buffer[:count])
                    left -= count
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return total.hexdigest()


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
