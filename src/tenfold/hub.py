"""Files of models on the Hugging Face hub or in its cache: found, not there, or out of reach, within a stated time.

The library holds what it gets to the declared size. To the declared hash it is held here: git's SHA-1 of a small file,
SHA-256 of a large one. A mirror that declares neither is believed; so is what lies in the cache already, and what
transformers itself fetches besides.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

TRUE = {"1", "ON", "YES", "TRUE"}
"""huggingface_hub's words for an environment variable that is set."""

CONFIG_SECONDS = 20.0
"""For a file of some kilobytes. A hub that says "try again in a minute" is asked five times by its own library."""

TOKENIZER_SECONDS = 300.0
"""For some ten megabytes on a slow line."""

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

THREAD = "tenfold hub"
"""Name of the threads that may still wait for a hub when they were given up."""

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class OutOfReach(Exception):
    """Whether the hub has the file is not known; one line says why."""


def offline() -> bool:
    """Whether the user wants no network."""
    return any(os.environ.get(key, "").upper() in TRUE for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def hub() -> str:
    """The hub's host."""
    return urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or "huggingface.co"


@cache
def is_known() -> bool:
    """Whether the hub has an address here, or a proxy would know it: huggingface_hub itself asks for half a minute."""
    if any(os.environ.get(key) for key in PROXIES):
        return True
    try:
        return bool(socket.getaddrinfo(hub(), 443))
    except OSError:
        return False


def fetch(name: str, file: str, revision: str | None, limit_seconds: float | None) -> Path | None:
    """A file of a model: as the hub has it, else from the cache; None where there is none.

    Without a limit it takes as long as bytes keep coming. Raises OutOfReach if the hub does not say, or sends another
    file than it declares, and the cache has nothing; ImportError without huggingface_hub.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    def get(local: bool) -> Path:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=local))

    def get_and_check() -> Path:
        found = get(local)
        return found if found == before else _as_declared(found)

    local = offline() or not is_known()
    before: Path | None = None
    with suppress(Exception):
        before = get(local=True)
    attempts = _Attempts()
    try:
        with attempts:
            return get_and_check() if limit_seconds is None else _within(limit_seconds, get_and_check)
    except LocalEntryNotFoundError as error:
        raise OutOfReach(_reason(error)) from None
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None
    except OutOfReach:
        raise
    except Exception as error:  # the library's own errors, its network's and builtin ones alike
        reason = _reason(error) + (attempts.last if isinstance(error, TimeoutError) else "")
    try:
        return get(local=True)
    except Exception:
        raise OutOfReach(reason) from None


def fetch_weights(name: str, folder: Path) -> None:
    """See to it that the safetensors files of a model, if it has any, are in `folder`, its snapshot in the cache.

    What is there is not asked for again. Raises as `fetch`; KeyError, TypeError or ValueError for a damaged index.
    """
    if (folder / WEIGHTS).is_file():
        return
    index = folder / INDEX
    if not index.is_file():
        if fetch(name, WEIGHTS, folder.name, None) is not None:
            return
        if fetch(name, INDEX, folder.name, TOKENIZER_SECONDS) is None:
            return
    for file in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
        if not (folder / file).is_file():
            fetch(name, file, folder.name, None)


def _as_declared(path: Path) -> Path:
    """A file that has just come, whose content is what the hub said; one that is not is taken away.

    The cache calls a file by what was declared, and links to it by its name.
    """
    declared = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", declared) is None:
        return path
    large = len(declared) == 64
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() == declared:
        return path
    blob = path.parent / path.readlink()
    path.unlink()
    blob.unlink(missing_ok=True)
    kind = "SHA-256" if large else "git hash"
    raise OutOfReach(f"sent another {path.name} than it declared ({kind} {declared[:12]}); nothing of it is kept")


def _within(limit_seconds: float, call: Callable[[], Path]) -> Path:
    """The result of a call, or its error; TimeoutError if it takes longer, and whatever comes of it then is dropped."""
    results: list[Path] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, name=THREAD, daemon=True)  # one that hangs must not keep the process alive
    thread.start()
    thread.join(limit_seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit_seconds:g} s")
    return results[0]


class _Attempts(logging.Filter):
    """While entered, the library tells of its failed attempts here and not on the terminal; `last` is the last one."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if not (text := record.getMessage()).startswith("Retrying"):
            self.last = f"; it {_told(text)}"
        return False

    def __enter__(self) -> Self:
        import huggingface_hub.utils.logging as library

        library.set_verbosity_error()
        self._logger = logging.getLogger("huggingface_hub.utils._http")
        self._logger.addFilter(self)
        self._logger.setLevel(logging.WARNING)
        return self

    def __exit__(self, *raised: object) -> None:
        self._logger.setLevel(logging.NOTSET)
        self._logger.removeFilter(self)


def _reason(error: BaseException) -> str:
    """In a few words, the status first: the library wraps what happened in several layers of advice."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    status = getattr(getattr(innermost, "response", None), "status_code", None)
    if status is not None:
        return f"answers with status {status}"
    return _told(str(innermost) or type(innermost).__name__)


def _told(text: str) -> str:
    """What a library said, its first line, and what helps where it is known."""
    own = "; where it is of an authority of your own, name that in SSL_CERT_FILE"
    cure = own if "CERTIFICATE_VERIFY_FAILED" in text else ""
    return f"says: {next(iter(text.strip().splitlines()), '')[:200]}{cure}"
