"""Files and folders that are there whole or not at all, also after a kill, a full disk or a power cut.

The order is always: write a hidden sibling, force every file of it to disk, rename, force the parent to disk. Only the
last two steps touch the name that readers know. One process at a time may write one name: siblings carry the writer's
process id, and what a dead writer left is removed by the next one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from tenfold.errors import TenfoldError
from tenfold.inert import printable

_SIBLING = re.compile(r"\.(?P<kind>tmp|old)-(?P<name>.+)-(?P<pid>\d+)", re.DOTALL)
"""tmp: unfinished or to be deleted. old: the previous folder, aside for the moment between two renames."""

_SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK_ERRORS = _SPACE_ERRORS | {errno.EIO, errno.EROFS}
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EPERM})
"""How file systems (NFS, FUSE, SMB) answer calls they do not have."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""From linux/fcntl.h and linux/fs.h; see renameat2(2)."""

_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
"""How safetensors, written in Rust, reports a failed system call: its exception is no OSError."""


def write_file(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` (text as UTF-8): readers see the old content or the new, never a part.

    Raises TenfoldError, naming the path and the bytes needed, when it cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    with _clear_errors(path, len(content)):
        writing = _write_sibling(path, content)
        try:
            writing.replace(path)
        finally:
            _remove(writing)
        _sync_folder(path.parent)


def create_file(path: Path, data: bytes | str) -> bool:
    """Write `path` unless something is there already; of two processes that try at once, one gets True.

    Raises TenfoldError as `write_file` does.
    """
    content = data.encode() if isinstance(data, str) else data
    with _clear_errors(path, len(content)):
        writing = _write_sibling(path, content)
        try:
            path.hardlink_to(writing)  # unlike a rename, this fails if the name is taken
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if os.path.lexists(path):
                return False
            writing.replace(path)
        finally:
            _remove(writing)
        _sync_folder(path.parent)
    return True


@contextmanager
def write_folder(path: Path, needed_bytes: int | None = None) -> Generator[Path, None, None]:
    """Give a hidden folder to write into; on leaving, it replaces `path` as a whole, or, after any error, nothing does.

    `needed_bytes` is what an error message says the disk must hold; without it, what was written so far.
    Raises TenfoldError when the disk is full or fails; other errors of the block pass through.
    """
    path = path.absolute()
    writing = _sibling(path, "tmp")
    with _clear_errors(path, needed_bytes):
        _make_folder(path.parent)
        recover(path.parent, path.name)
        writing.mkdir()
    try:
        with _clear_errors(path, needed_bytes, writing, only=_DISK_ERRORS):
            yield writing
        with _clear_errors(path, needed_bytes, writing):
            sync_tree(writing)
            _put_in_place(writing, path)
    finally:
        _remove(writing)  # the unfinished new one after an error, else the previous one


def remove_folder(path: Path) -> bool:
    """Delete `path`: its name goes first and at once, so that nobody reads half a folder. False if it could not be."""
    gone = _sibling(path, "tmp")
    _remove(gone)
    try:
        path.rename(gone)
    except OSError:
        return False
    _remove(gone)
    return not os.path.lexists(gone)


def recover(folder: Path, name: str | None = None) -> None:
    """Clean up after dead writers in `folder`: of one name, or of all names where the folder is tenfold's own.

    A folder that was aside when its writer died is put back. What cannot be cleaned (read-only disk) is left.
    """
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            found = _SIBLING.fullmatch(entry.name)
            if found is None or name not in (None, found["name"]) or _is_other_process(int(found["pid"])):
                continue
            target = folder / found["name"]
            if found["kind"] == "old" and not os.path.lexists(target):
                entry.rename(target)
            else:
                _remove(entry)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs on this computer."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_other_process(pid: int) -> bool:
    # A restarted container hands out the same small ids again: a sibling with our own id is a dead one's.
    return pid != os.getpid() and is_alive(pid)


def _sibling(path: Path, kind: Literal["tmp", "old"]) -> Path:
    return path.with_name(f".{kind}-{path.name}-{os.getpid()}")


def _write_sibling(path: Path, content: bytes) -> Path:
    _make_folder(path.parent)
    recover(path.parent, path.name)
    writing = _sibling(path, "tmp")
    try:
        with writing.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        _remove(writing)
        raise
    return writing


def _make_folder(folder: Path) -> None:
    missing: list[Path] = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        missing.append(parent)
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync_folder(made.parent)


def sync_tree(folder: Path) -> None:
    """Force every file and folder in `folder` to disk. Raises OSError."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not (path := Path(root, name)).is_symlink():
                _sync(path)
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # a folder cannot be forced to disk there: nothing more can be done
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename `new` to `path`; what was there gets the name of `new`. Undone if the disk does not confirm it."""
    move = _swap if os.path.lexists(path) else Path.rename
    move(new, path)
    try:
        _sync_folder(path.parent)
    except OSError:
        if move is _swap:
            _swap(new, path)
        else:
            path.rename(new)
        raise


def _swap(new: Path, path: Path) -> None:
    if _exchange(new, path):
        return
    # Between these renames `path` is missing; `recover` puts the previous one back if we die here.
    aside = _sibling(path, "old")
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    aside.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one atomic step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without it
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _clear_errors(
    path: Path, needed_bytes: int | None, writing: Path | None = None, only: Collection[int] | None = None
) -> Generator[None, None, None]:
    """Turn failed system calls, or `only` those with these numbers, into one line for the user."""
    try:
        yield
    except TenfoldError:
        raise
    except Exception as error:
        number = _errno(error)
        if number is None or (only is not None and number not in only):
            raise
        written = 0 if writing is None else _size_bytes(writing)
        needed = needed_bytes if needed_bytes is not None or writing is None else written
        raise TenfoldError(_why_not_written(path, number, needed, written)) from error


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = _RUST_ERRNO.search(str(error))
    return int(found[1]) if found else None


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _why_not_written(path: Path, number: int, needed_bytes: int | None, written_bytes: int) -> str:
    """`written_bytes` are about to be given back: they count as free."""
    line = f"{printable(str(path))}: cannot be written: {os.strerror(number)}"
    if needed_bytes is not None:
        line += f"; needs {needed_bytes:,} bytes"
    if number not in _SPACE_ERRORS:
        return line
    with suppress(OSError):
        line += f", {shutil.disk_usage(path.parent).free + written_bytes:,} are free"
    return f"{line}; the previous one is kept: free some space or name a folder on a larger disk, then run this again"
