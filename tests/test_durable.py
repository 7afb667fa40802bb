"""Files and folders are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenfold import durable
from tenfold.durable import create_file, recover, remove_folder, write_file, write_folder
from tenfold.errors import TenfoldError

CRASHES = Path(__file__).with_name("crashes.py")
DEAD = 2**22 + 1
"""No process has this id: it is above Linux's largest (PID_MAX_LIMIT)."""


def fill(folder: Path, content: str = "new") -> None:
    with write_folder(folder) as writing:
        (writing / "a").write_text(content)
        (writing / "deep").mkdir()
        (writing / "deep" / "b").write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("data", ["täxt\n", b"\x00\xff", ""])
def test_write_and_replace_a_file(tmp_path: Path, data: bytes | str) -> None:
    target = tmp_path / "made" / "for it" / "x.json"
    write_file(target, "before")
    write_file(target, data)
    assert target.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(target.parent) == ["x.json"]


def test_create_file_leaves_what_is_there(tmp_path: Path) -> None:
    assert create_file(tmp_path / "x", "first")
    assert not create_file(tmp_path / "x", "second")
    assert (tmp_path / "x").read_text() == "first"
    assert names(tmp_path) == ["x"]


def test_create_file_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_create_file_leaves_what_is_there(tmp_path)


@pytest.mark.parametrize("exchange", [True, False])
def test_write_and_replace_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    target = tmp_path / "made" / "x"
    fill(target, "old")
    (target / "only in the old one").touch()
    fill(target)
    assert names(tmp_path) == ["made", "made/x", "made/x/a", "made/x/deep", "made/x/deep/b"]
    assert (target / "a").read_text() == "new"


def test_the_exchange_is_atomic_here(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").touch()
    if not durable._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this system or file system has no renameat2 with RENAME_EXCHANGE")
    assert (tmp_path / "one").is_file()
    assert (tmp_path / "other").is_dir()


def test_an_error_in_the_block_passes_through_and_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "x", "old")
    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "x") as writing:
        (writing / "a").write_text("new")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), write_folder(tmp_path / "x"):
        (tmp_path / "not there").read_text()
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("exchange", [True, False])
def test_failure_of_each_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, exchange: bool) -> None:
    """The file or folder that was there stays, whichever fsync fails; only a file's last one comes too late to undo."""
    if not exchange:
        monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
    fill(tmp_path / "folder", "old")
    write_file(tmp_path / "file", "old")
    cases: list[tuple[Callable[[], None], Path, int]] = [
        (lambda: fill(tmp_path / "folder"), tmp_path / "folder" / "a", 5),
        (lambda: write_file(tmp_path / "file", "new"), tmp_path / "file", 2),
    ]
    for write, shown, calls in cases:
        for failing in range(calls):
            with failing_fsync(monkeypatch, failing, number), pytest.raises(TenfoldError) as caught:
                write()
            message = str(caught.value)
            assert str(tmp_path / shown.relative_to(tmp_path).parts[0]) in message
            assert os.strerror(number) in message
            assert "bytes" in message
            assert "\n" not in message
            after = "new" if (shown.name, failing) == ("file", 1) else "old"
            assert shown.read_text() == after
            assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
        with failing_fsync(monkeypatch, calls, number):  # one more than there are: nothing fails
            write()
        assert shown.read_text() == "new"


@contextmanager
def failing_fsync(monkeypatch: pytest.MonkeyPatch, failing: int, number: int) -> Generator[None, None, None]:
    real, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("through", ["file", "folder", "rust"])
def test_a_file_that_may_not_grow(tmp_path: Path, through: str) -> None:
    """A real refusal by the kernel (EFBIG), as a quota gives it: the message says how much is needed."""
    target = tmp_path / "x"

    def write() -> None:
        if through == "file":
            write_file(target, b"x" * 100_000)
            return
        with write_folder(target, needed_bytes=100_000) as writing:
            if through == "folder":
                (writing / "a").write_bytes(b"x" * 100_000)
            else:
                raise RuntimeError("Error while serializing: I/O error: File too large (os error 27)")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(TenfoldError, match=r"x: cannot be written: File too large; needs 100,000 bytes, .* free"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_order_on_the_way_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of every file, then of its folders, then the rename, then fsync of the parent."""
    log: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        log.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}".replace(f"-{os.getpid()}", ""))
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        log.append(f"rename to {target.name}")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to name descriptors")
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    fill(tmp_path / "x")
    expected = ["fsync b", "fsync deep", "fsync a", "fsync .tmp-x", "rename to x", f"fsync {tmp_path.name}"]
    assert log == expected


def test_recover(tmp_path: Path) -> None:
    mine, living = os.getpid(), os.getppid()
    for name in (
        f".tmp-x-{DEAD}",
        f".tmp-x-{mine}",
        f".tmp-x-{living}",
        f".old-x-{DEAD}",
        f".old-y-{DEAD}",
        ".tmp-x",
        "z",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / f".old-x-{DEAD}" / "kept").touch()
    recover(tmp_path, "x")
    assert names(tmp_path) == sorted([f".tmp-x-{living}", f".old-y-{DEAD}", ".tmp-x", "x", "x/kept", "z"])
    recover(tmp_path)
    assert names(tmp_path) == sorted([f".tmp-x-{living}", ".tmp-x", "x", "x/kept", "y", "z"])
    recover(tmp_path / "not there")


def test_remove_folder(tmp_path: Path) -> None:
    fill(tmp_path / "x")
    assert remove_folder(tmp_path / "x")
    assert names(tmp_path) == []
    assert not remove_folder(tmp_path / "x")


def test_a_link_inside_a_folder_is_not_followed(tmp_path: Path) -> None:
    with write_folder(tmp_path / "x") as writing:
        (writing / "link").symlink_to("nowhere")
    assert (tmp_path / "x" / "link").readlink() == Path("nowhere")


def test_killed_at_every_operation(tmp_path: Path) -> None:
    """Whatever the point, a reader finds the old one or the new one; a naive writer fails the same test."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(CRASHES), "durable", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    naive = found.pop("naive")
    assert {"none", "torn"} & set(naive), "the harness finds no fault in a writer that has one"
    for scenario, seen in found.items():
        before = "none" if scenario in ("file, first", "created", "folder, first") else "old"
        assert seen == sorted(seen, key=[before, "new"].index), scenario
        assert (seen[0], seen[-1]) == (before, "new"), scenario
        assert len(seen) >= 6, scenario
