"""Files of models on the Hugging Face hub or in its cache: found, not there, or out of reach, within a stated time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

TRUE = {"1", "ON", "YES", "TRUE"}
"""huggingface_hub's words for an environment variable that is set."""

CONFIG_SECONDS = 20.0
"""For a file of some kilobytes. A hub that says "try again in a minute" is asked five times by its own library."""

TOKENIZER_SECONDS = 300.0
"""For some ten megabytes on a slow line."""

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


def fetch(name: str, file: str, revision: str | None, limit_seconds: float) -> Path | None:
    """A file of a model: as the hub has it, else from the cache; None where there is none.

    Raises OutOfReach if the hub does not say and the cache has nothing, ImportError without huggingface_hub.
    """
    import huggingface_hub.utils.logging as library
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    def get(local: bool) -> Path:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=local))

    library.set_verbosity_error()  # it would tell of every attempt; the last one is told here
    local = offline() or not is_known()
    try:
        return _within(limit_seconds, lambda: get(local))
    except LocalEntryNotFoundError as error:
        raise OutOfReach(_reason(error)) from None
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None
    except Exception as error:  # the library's own errors, its network's and builtin ones alike
        reason = _reason(error)
    try:
        return get(local=True)
    except Exception:
        raise OutOfReach(reason) from None


def _within(limit_seconds: float, call: Callable[[], Path]) -> Path:
    """The result of a call, or its error; TimeoutError if it takes longer, and whatever comes of it then is dropped."""
    results: list[Path] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)  # one that hangs must not keep the process alive
    thread.start()
    thread.join(limit_seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit_seconds:g} s")
    return results[0]


def _reason(error: BaseException) -> str:
    """In a few words, the status first: the library wraps what happened in several layers of advice."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    status = getattr(getattr(innermost, "response", None), "status_code", None)
    if status is not None:
        return f"answers with status {status}"
    first = next(iter(str(innermost).strip().splitlines()), type(innermost).__name__)
    return f"says: {first[:200]}"
