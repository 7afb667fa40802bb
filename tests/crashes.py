"""Kill a writer before each change that it makes to the disk, and look at what is left.

`python crashes.py durable|checkpoint <empty folder>` prints {scenario: [what a reader found after each crash]}. It runs
in an interpreter of its own, so that what it imports is paid once and every crash is a cheap fork. The operations come
from Python's audit events; those without an event (fsync, the exchange of names, safetensors' write) are wrapped.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold import durable

CRASH = 9
CHANGES = frozenset(["os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"])
"""Names from Python's table of audit events. Between two changes every crash leaves the same."""


@dataclass(frozen=True)
class Scenario:
    """`act` is killed at every point; `look` then says what a reader finds; then `act` runs again, undisturbed."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    look: Callable[[Path], str]
    setting: Callable[[], None] = lambda: None
    """What is different about the killed process, such as a file system without the exchange of names."""


class Countdown:
    """Ends the process at the given point."""

    def __init__(self, left: int) -> None:
        self.left = left

    def point(self) -> None:
        if self.left == 0:
            os._exit(CRASH)
        self.left -= 1

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            self.point()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            self.point()
            result = call(*args)
            self.point()
            return result

        return wrapped


def crashes(scenario: Scenario, root: Path) -> list[str]:
    """What is found after a crash at point 0, 1, 2, ...; the last entry is of the run that was not killed."""
    (before := root / "before").mkdir()
    scenario.prepare(before)
    found: list[str] = []
    code = CRASH
    while code == CRASH:
        folder = Path(shutil.copytree(before, root / str(len(found))))
        child = os.fork()
        if child == 0:
            arm(Countdown(len(found)), scenario)
            try:
                scenario.act(folder)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, CRASH), f"the writer failed by itself at point {len(found)}"
        found.append(scenario.look(folder))
        scenario.act(folder)
        hidden = [str(path) for path in folder.rglob(".*")]
        assert not hidden, f"left over after point {len(found)}: {hidden}"
        assert scenario.look(folder) == "new", f"the next writer failed after point {len(found)}"
    return found


def arm(countdown: Countdown, scenario: Scenario) -> None:
    """Make this process end at the countdown."""
    scenario.setting()
    os.fsync = countdown.around(os.fsync)
    durable._exchange = countdown.around(durable._exchange)
    if "checkpoint" in globals():
        checkpoint.save_file = countdown.around(torn_save_file(countdown))
    sys.addaudithook(countdown.audit)


def no_exchange() -> None:
    """As on a file system without RENAME_EXCHANGE."""
    durable._exchange = lambda one, other: False


def durable_scenarios() -> dict[str, Scenario]:
    def write_old(folder: Path) -> None:
        (folder / "x").write_text("old")

    def read(path: Path) -> str:
        return path.read_text() if path.exists() else "none"

    def write_old_folder(folder: Path) -> None:
        (folder / "x" / "deep").mkdir(parents=True)
        (folder / "x" / "a").write_text("old")
        (folder / "x" / "deep" / "b").write_text("old")

    def write_new_folder(folder: Path) -> None:
        with durable.write_folder(folder / "x") as writing:
            (writing / "deep").mkdir()
            (writing / "a").write_text("new")
            (writing / "deep" / "b").write_text("new")

    def read_folder(folder: Path) -> str:
        found = {read(folder / "x" / "a"), read(folder / "x" / "deep" / "b")}
        return found.pop() if len(found) == 1 else "torn"

    def recovered(folder: Path) -> str:
        durable.recover(folder)
        return read_folder(folder)

    def naive(folder: Path) -> None:
        if (folder / "x").exists():
            shutil.rmtree(folder / "x")
        write_new_into(folder / "x")

    def write_new_into(folder: Path) -> None:
        (folder / "deep").mkdir(parents=True)
        (folder / "a").write_text("new")
        (folder / "deep" / "b").write_text("new")

    def nothing(folder: Path) -> None:
        pass

    return {
        "file, first": Scenario(nothing, lambda f: durable.write_file(f / "x", "new"), lambda f: read(f / "x")),
        "file, again": Scenario(write_old, lambda f: durable.write_file(f / "x", "new"), lambda f: read(f / "x")),
        "created": Scenario(nothing, lambda f: void(durable.create_file(f / "x", "new")), lambda f: read(f / "x")),
        "folder, first": Scenario(nothing, write_new_folder, read_folder),
        "folder, again": Scenario(write_old_folder, write_new_folder, read_folder),
        "folder, no exchange": Scenario(write_old_folder, write_new_folder, recovered, no_exchange),
        "naive": Scenario(write_old_folder, naive, read_folder),
    }


def void(_: object) -> None:
    """A call for its effect."""


def torn_save_file(countdown: Countdown) -> Callable[..., None]:
    """safetensors' writer, stopped after half the bytes when its turn comes."""
    whole = checkpoint.save_file

    def save(tensors: Any, path: Path) -> None:
        if countdown.left == 0:
            whole(tensors, path)
            os.truncate(path, path.stat().st_size // 2)
        countdown.point()
        whole(tensors, path)

    return save


def checkpoint_scenarios() -> dict[str, Scenario]:
    def save(folder: Path, step: int, mark: str, keep: int) -> None:
        value = {"old": 1.0, "new": 2.0}[mark]
        tensors = {"weights/a": torch.full((16,), value), "optimizer/0/step": torch.tensor(value)}
        checkpoint.save_state(folder / "checkpoints", step, tensors, {"mark": mark}, keep)

    def look(folder: Path) -> str:
        saved = checkpoint.newest_state(folder / "checkpoints")
        if saved is None:
            return "none"
        values = {float(value.flatten()[0]) for value in checkpoint.load_tensors(saved, "cpu").values()}
        assert values == {{"old": 1.0, "new": 2.0}[saved.state["mark"]]}
        return saved.state["mark"] + (f" after {saved.skipped}" if saved.skipped else "")

    def old(*steps: int) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            for step in steps:
                save(folder, step, "old", 5)

        return prepare

    def new(keep: int) -> Callable[[Path], None]:
        return lambda folder: save(folder, 120, "new", keep)

    @contextmanager
    def in_place(path: Path, needed_bytes: int | None = None) -> Generator[Path, None, None]:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path

    def write_in_place() -> None:
        checkpoint.write_folder = in_place

    def look_or_lost(folder: Path) -> str:
        try:
            return look(folder)
        except checkpoint.InputError:
            return "lost"

    return {
        "first": Scenario(old(), new(2), look),
        "next, keep 1": Scenario(old(80), new(1), look),
        "same step": Scenario(old(120), new(1), look),
        "same step, no exchange": Scenario(old(120), new(1), look, no_exchange),
        "naive": Scenario(old(120), new(1), look_or_lost, write_in_place),
    }


if __name__ == "__main__":
    which, ROOT = sys.argv[1:]
    # A killed process loses nothing that the kernel holds: the disk itself need not be waited for.
    os.fsync = lambda descriptor: None
    os.posix_fadvise = lambda descriptor, offset, length, advice: None
    if which == "checkpoint":
        import torch

        from tenfold.run import checkpoint

        torch.set_num_threads(1)
    gc.freeze()  # so that a fork shares its pages
    results: dict[str, list[str]] = {}
    for name, case in (checkpoint_scenarios() if which == "checkpoint" else durable_scenarios()).items():
        (root := Path(ROOT) / name.replace(",", "").replace(" ", "-")).mkdir()
        results[name] = crashes(case, root)
    print(json.dumps(results))
