"""Writers killed at every file system call they make: what is read afterwards is the old content or the new.

Two ways, each where it sees most. `tests/crashes.py` kills forks of the writers of files, folders and checkpoints, a
safetensors file half written included. strace kills the ledger, which SQLite writes in C, and the receipt before each
system call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crashes
from faults import writers
from faults.runs import drop, finish, lay_out, plans

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat2", "link", "unlink", "mkdir")
"""Calls that change a disk. strace counts each by itself: a kill before the first, second, ... of each kind."""


def crash_points(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row a writer. All points are taken: `until` and `seed` change nothing, and `count` 0 leaves out the forks."""
    del until, seed
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if count:
        yield from forks(folder)
    if shutil.which("strace") is None:
        yield {"writer": "ledger and receipt", "points": 0, "lost": 0, "left_out": "strace is not installed"}
        return
    run = lay_out(plans(folder)["sft packed"], folder / "run")
    finish(run)
    for action in writers.ACTIONS:
        yield under_strace(action, run / "run" / "receipt.json", folder / action)


def forks(folder: Path) -> Iterator[dict[str, Any]]:
    """`tests/crashes.py`, which checks by itself that the next writer goes on."""
    for which in ("durable", "checkpoint"):
        (root := folder / f"forks-{which}").mkdir()
        command = [sys.executable, crashes.__file__, which, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        for scenario, found in json.loads(done.stdout).items():
            lost = sum(one not in (found[0], "new") for one in found)
            row = {"writer": f"{which}: {scenario}", "points": len(found) - 1, "lost": lost}
            yield {**row, "control": True} if scenario == "naive" else row


def under_strace(action: str, receipt: Path, folder: Path) -> dict[str, Any]:
    """Kill the action before each call of each kind, look, and let it happen again undisturbed."""
    act, look = writers.ACTIONS[action]
    folder.mkdir()
    calls = calls_of(action, receipt, folder)
    lost: list[str] = []
    for call, nth in calls:
        writers.prepare(place := folder / f"{call}-{nth}", receipt)
        inject = f"inject={call}:signal=SIGKILL:when={nth}"
        code = traced(action, place, folder / "log", f"trace={call}", inject)
        found = look(place)
        act(place)
        if code == 0 or found not in ("old", "new") or look(place) != "new":
            lost.append(f"{call} {nth}: exit code {code}, {found}, then {look(place)}")
        drop(place)
    control = {"control": True} if action == "naive" else {}
    return {"writer": f"strace: {action}", "points": len(calls), "lost": len(lost), "found": lost, **control}


def calls_of(action: str, receipt: Path, folder: Path) -> list[tuple[str, int]]:
    """The calls that the action makes undisturbed: each kind, and its how-manieth of that kind."""
    writers.prepare(place := folder / "undisturbed", receipt)
    if traced(action, place, folder / "log", f"trace={','.join(CALLS)}"):
        raise SystemExit(f"{action} fails by itself")
    made = re.findall(r"^\d+ +(\w+)\(", (folder / "log").read_text(), re.MULTILINE)
    return [(call, nth) for call in CALLS for nth in range(1, made.count(call) + 1)]


def traced(action: str, place: Path, log: Path, *expressions: str) -> int:
    """The exit code of the action in a process under strace."""
    command = ["strace", "-f", "-qq", "-o", str(log)]
    for expression in expressions:
        command += ["-e", expression]
    command += [sys.executable, writers.__file__, action, str(place)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Points tried over all writers, and those after which nothing was lost."""
    kept = [row for row in rows if "control" not in row]
    controls = [row for row in rows if "control" in row]
    tried = sum(row["points"] for row in kept)
    return {
        "tried": tried,
        "held": tried - sum(row["lost"] for row in kept),
        "writers": len(kept),
        "controls": len(controls),
        "controls_caught": sum(row["lost"] > 0 for row in controls),
    }
