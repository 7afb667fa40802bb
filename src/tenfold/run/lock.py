"""One output folder belongs to one recipe, and to one process at a time."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from filelock import FileLock, Timeout

from tenfold.durable import create_file, is_alive, write_file
from tenfold.errors import InputError, TenfoldError
from tenfold.inert import printable

CLAIM, LOCK, NOTE = "run.json", ".lock", "lock.json"

_NOT_UNRELATED = frozenset({LOCK, NOTE, "lost+found"})
"""Ours, and the folder that every ext4 volume has at its root."""


class OutputLock:
    """While entered, no other process trains into `folder`; `run_id` is what it is told is running there.

    The lock is the kernel's (flock), so it is gone when its process is, however that died; `lock.json` beside it only
    says who holds it. Raises InputError when another process holds it or the folder cannot be written.
    """

    def __init__(self, folder: Path, run_id: str | None = None) -> None:
        self._folder = folder
        self._run_id = folder.absolute().name if run_id is None else run_id
        self._lock = FileLock(str(folder / LOCK), timeout=0)

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise InputError(f"{_shown(self._folder)}: {_holder(self._folder)}") from None
        except OSError as error:
            raise InputError(f"{_shown(self._folder)}: cannot be locked: {error.strerror or error}") from error
        note = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "run": self._run_id,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            write_file(self._folder / NOTE, json.dumps(note) + "\n")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError):  # only a note: without the lock it means nothing
            (self._folder / NOTE).unlink()
        self._lock.release()


def claim_output(folder: Path, recipe_sha256: str) -> bool:
    """Make `folder` the home of this recipe's run (True), or confirm that it is (False).

    Raises InputError, before anything is written, if it holds another recipe's run or unrelated files, and if it cannot
    be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claimed = (folder / CLAIM).exists()
        if not claimed and (others := _unrelated(folder)):
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise InputError(
                f"{_shown(folder)}: is not empty and holds no run: {others[0]!r}{more}; name a new output.folder"
            )
        made = False
        if not claimed:
            # Of two runs that start at once, one creates the file, and the other then reads whose it is.
            made = create_file(folder / CLAIM, json.dumps({"schema_version": 1, "recipe_sha256": recipe_sha256}) + "\n")
        found = _read(folder / CLAIM)
    except InputError:
        raise
    except (OSError, TenfoldError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"{_shown(folder)}: cannot be used as output.folder: {why}") from error
    if not isinstance(theirs := found.get("recipe_sha256"), str):
        raise InputError(f"{_shown(folder / CLAIM)}: damaged, it names no recipe; name a new output.folder")
    if theirs != recipe_sha256:
        raise InputError(
            f"{_shown(folder)}: holds the run of another recipe (hash {printable(theirs[:12])}, yours has"
            f" {recipe_sha256[:12]}); name a new output.folder, or delete this one to start over"
        )
    return made


def drop_claim(folder: Path) -> None:
    """Let another recipe have `folder`, in which nothing was trained; to be called under its lock."""
    with suppress(OSError):  # what refused the run matters more to its owner
        (folder / CLAIM).unlink()


def _unrelated(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir())
    return [printable(name) for name in names if name not in _NOT_UNRELATED and not name.startswith(f".tmp-{CLAIM}-")]


def _holder(folder: Path) -> str:
    note = _read(folder / NOTE)
    if not note:
        return "another run holds this folder; wait for it, or name a new output.folder"
    pid, host = note.get("pid"), note.get("host")
    run, since = printable(str(note.get("run"))), printable(str(note.get("started_at")))
    who = f"run {run!r} (process {printable(str(pid))} on {printable(str(host))}, since {since})"
    if host == socket.gethostname() and isinstance(pid, int) and not is_alive(pid):
        return f"{who} has died, but a process it started still holds this folder; end that one, then run this again"
    return f"{who} holds this folder; wait for it, stop it, or name a new output.folder"


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, or an empty one if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _shown(path: Path) -> str:
    return printable(str(path))
