"""A state gets its name when it is whole and proven; only then may older ones go."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saved_states import FILES, rewrite, save, steps_in
from tenfold.errors import TenfoldError
from tenfold.run import checkpoint
from tenfold.run.checkpoint import newest_state, save_state

CRASHES = Path(__file__).parents[1] / "crashes.py"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    for step in (40, 80, 120):
        save(folder, step)
    return folder


@pytest.fixture
def states(template: Path, tmp_path: Path) -> Path:
    """Good states of steps 40, 80 and 120."""
    return Path(shutil.copytree(template, tmp_path / "checkpoints"))


@pytest.mark.parametrize(
    ("keep", "left"), [(1, ["step-00000160"]), (2, ["step-00000120", "step-00000160"]), (9, [40, 80, 120, 160])]
)
def test_retention(states: Path, keep: int, left: list[Any]) -> None:
    save(states, 160, keep)
    assert steps_in(states) == [name if isinstance(name, str) else f"step-{name:08d}" for name in left]


def test_keep_none_is_a_mistake(states: Path) -> None:
    with pytest.raises(ValueError, match="keep is 0"):
        save(states, 160, keep=0)


def test_damaged_states_do_not_count(states: Path) -> None:
    """After falling back from 120 to 80 and going on, the two kept ones are good."""
    rewrite(states / "step-00000120" / "state.json", lambda content: content[:-9])
    save(states, 100, keep=2)
    assert steps_in(states) == ["step-00000080", "step-00000100"]
    (states / "step-00000080" / FILES[0]).unlink()
    save(states, 140, keep=2)
    assert steps_in(states) == ["step-00000100", "step-00000140"]


def test_a_good_newer_state_is_not_deleted(states: Path) -> None:
    save(states, 60, keep=1)
    assert steps_in(states) == ["step-00000060", "step-00000080", "step-00000120"]


def test_a_damaged_state_of_the_same_step_is_replaced(states: Path) -> None:
    (states / "step-00000120" / "extra").touch()
    save(states, 120)
    saved = newest_state(states)
    assert saved is not None
    assert (saved.step, saved.skipped) == (120, ())


def test_a_failed_delete_is_tried_again(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "step-00000040":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        save(states, 160, keep=1)
        assert steps_in(states) == ["step-00000040", "step-00000160"]
    save(states, 200, keep=1)
    assert steps_in(states) == ["step-00000200"]


def test_what_reads_back_differently_never_gets_the_name(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = checkpoint._manifest

    def then_damage(folder: Path, step: int) -> dict[str, Any]:
        made = manifest(folder, step)
        rewrite(folder / FILES[0], lambda content: content[:-1] + bytes([content[-1] ^ 1]))
        return made

    monkeypatch.setattr(checkpoint, "_manifest", then_damage)
    with pytest.raises(TenfoldError, match=r"step-00000160: reads back differently than written: tensors-00001"):
        save(states, 160, keep=1)
    with pytest.raises(TenfoldError, match="reads back differently"):
        save(states, 120, keep=1)
    assert steps_in(states) == ["step-00000040", "step-00000080", "step-00000120"]
    saved = newest_state(states)
    assert saved is not None
    assert saved.step == 120


def test_order_of_a_save(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file reaches the disk before the name is given, the name before anything is deleted."""
    log: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        log.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        log.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to name descriptors")
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    save(states, 160, keep=2)
    own = os.getpid()
    named = log.index(f".tmp-step-00000160-{own} -> step-00000160")
    assert {*FILES, f".tmp-step-00000160-{own}"} <= set(log[:named])
    assert log[named + 1] == "checkpoints"
    assert [line.partition(" ")[0] for line in log[named + 2 :]] == ["step-00000080", "step-00000040"]


@pytest.mark.parametrize("limit_bytes", [100, 20_000])
def test_a_disk_that_takes_no_more(states: Path, limit_bytes: int) -> None:
    """EFBIG from the kernel, in Python's writes and in safetensors'."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tensors = {"weights": torch.zeros(10_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(
            TenfoldError, match=r"step-00000160: cannot be written: File too large; needs 40,0\d\d bytes"
        ):
            save_state(states, 160, tensors, {"step": 160}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps_in(states) == ["step-00000040", "step-00000080", "step-00000120"]
    save_state(states, 160, tensors, {"step": 160}, 1)
    assert steps_in(states) == ["step-00000160"]


def test_a_full_disk(tmp_path: Path) -> None:
    """ENOSPC from a real file system of 1 MiB; once there is room, the same save succeeds."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not mounted or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small file system here")
    try:
        folder = disk / "checkpoints"
        save(folder, 80)
        (disk / "other").write_bytes(bytes(700_000))
        tensors = {"weights": torch.zeros(100_000)}
        with pytest.raises(
            TenfoldError, match=r"No space left on device; needs 400,0\d\d bytes, [23]\d\d,\d+ are free"
        ):
            save_state(folder, 120, tensors, {}, 1)
        assert steps_in(folder) == ["step-00000080"]
        (disk / "other").unlink()
        save_state(folder, 120, tensors, {}, 1)
        assert steps_in(folder) == ["step-00000120"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_killed_at_every_operation(tmp_path: Path) -> None:
    """Whatever the point, the newest usable state is the old one or the new one; a naive writer fails the same test."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(CRASHES), "checkpoint", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    assert {"lost", "none"} & set(found.pop("naive")), "the harness finds no fault in a writer that has one"
    for scenario, seen in found.items():
        before = "none" if scenario == "first" else "old"
        assert seen == sorted(seen, key=[before, "new"].index), scenario
        assert (seen[0], seen[-1]) == (before, "new"), scenario
        assert len(seen) > 15, scenario
