"""Writers killed at every file system call they make: what is read afterwards is the old content or the new.

Three ways, each where it sees most. `tests/crashes.py` kills forks of the bare writers, a safetensors file half written
included. A whole run is killed the same way at every point from its first file to its receipt. And strace kills before
each system call of the ledger, which SQLite writes in C, and of the receipt.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crashes
from faults.runs import drop, end_of, finish, lay_out, log_of, plans, reference, start
from tenfold.errors import TenfoldError
from tenfold.ledger import open_ledger
from tenfold.receipt import Receipt
from tenfold.run import checkpoint

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat2", "link", "unlink", "mkdir")
"""Calls that change a disk. strace counts each by itself: a kill before the first, second, ... of each kind."""

APPEND = """
import sys
from pathlib import Path
from tenfold.ledger import open_ledger, spent_row
from tenfold.receipt import Receipt

folder = Path(sys.argv[1])
with open_ledger(folder / "ledger.sqlite") as ledger:
    ledger.append(spent_row(Receipt.read(folder / "receipt.json"), folder / "receipt.json", "b" * 64))
"""

WRITE = """
import sys
from pathlib import Path
from tenfold.receipt import Receipt

folder = Path(sys.argv[1])
Receipt.read(folder / "new.json").write(folder / "receipt.json")
"""

NAIVE = """
import sys
from pathlib import Path

folder = Path(sys.argv[1])
content = (folder / "new.json").read_bytes()
with (folder / "receipt.json").open("wb", buffering=0) as file:
    file.write(content[:100])
    file.write(content[100:])
"""


def crash_points(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row a writer. `count` bounds the points of the whole run; `seed` changes nothing: all points are taken."""
    del seed
    yield from bare_writers(folder)
    plan = plans(folder, epochs=None, max_steps=2, save_every_steps=1, eval_every_steps=2)["sft packed"]
    done, _ = reference(plan, folder / "whole")
    receipts = folder / "whole" / "reference-1" / "run" / "receipt.json"
    yield from whole_run(plan, folder, done, count, until)
    if shutil.which("strace") is None:
        yield {"writer": "ledger and receipt", "left_out": "strace is not installed"}
        return
    for name, script, look in (("ledger", APPEND, ledger_of), ("receipt", WRITE, receipt_of)):
        yield under_strace(name, script, look, receipts, folder / name)
    yield {**under_strace("receipt", NAIVE, receipt_of, receipts, folder / "naive"), "control": True}


def bare_writers(folder: Path) -> Iterator[dict[str, Any]]:
    """`tests/crashes.py`, which proves by itself that the next writer goes on."""
    for which in ("durable", "checkpoint"):
        (root := folder / f"bare-{which}").mkdir()
        command = [sys.executable, crashes.__file__, which, str(root)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        for scenario, found in json.loads(done.stdout).items():
            before = found[0]
            lost = sum(one not in (before, "new") for one in found)
            row = {"writer": f"{which}: {scenario}", "points": len(found) - 1, "lost": lost}
            yield {**row, "control": True} if scenario == "naive" else row


def whole_run(plan: Any, folder: Path, wanted: Any, count: int, until: float) -> Iterator[dict[str, Any]]:
    """A run of two steps killed at every point, continued each time, with its weights, receipt and ledger row."""
    points, lost, whole = 0, [], False
    while points < count and not whole and time.monotonic() < until:
        run = lay_out(plan, folder / f"point-{points}")
        code = end_of(start(run, lambda at=points: arm(at)))
        whole = code == 0
        if code not in (0, crashes.CRASH):
            lost.append(f"point {points}: {log_of(run)[-300:]}")
        elif (found := finish(run)) != wanted or "Traceback" in log_of(run):
            lost.append(f"point {points}: {found}")
        points += not whole
        drop(run)
    yield {"writer": "whole run", "points": points, "complete": whole, "lost": len(lost), "found": lost}


def arm(at: int) -> None:
    """End this process at its `at`-th point."""
    crashes.checkpoint = checkpoint  # pyright: ignore
    crashes.arm(crashes.Countdown(at), crashes.Scenario(ignore, ignore, lambda folder: ""))


def ignore(folder: Path) -> None:
    """Nothing to prepare."""


def under_strace(name: str, script: str, look: Callable[[Path], str], receipt: Path, folder: Path) -> dict[str, Any]:
    """Kill the script before each call of each kind, look, and let it run again undisturbed."""
    folder.mkdir()
    points = lost = 0
    for call in CALLS:
        for nth in range(1, 100):
            place = folder / f"{call}-{nth}"
            prepare(place, receipt)
            inject = f"inject={call}:signal=SIGKILL:when={nth}"
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
            python = [sys.executable, "-c", script, str(place)]
            if subprocess.run([*command, *python], env=environment, check=False, capture_output=True).returncode == 0:
                break
            points += 1
            found = look(place)
            again = subprocess.run(python, env=environment, check=False, capture_output=True).returncode
            lost += found not in ("old", "new") or again != 0 or look(place) not in ("new", "new and again")
            drop(place)
    return {"writer": name, "points": points, "lost": lost}


def prepare(place: Path, receipt: Path) -> None:
    """The old receipt with another one to be written over it, and a ledger of one row."""
    place.mkdir()
    old = Receipt.read(receipt)
    old.write(place / "receipt.json")
    old.model_copy(update={"name": "new"}).write(place / "new.json")
    with open_ledger(place / "ledger.sqlite") as ledger:
        from tenfold.ledger import spent_row

        ledger.append(spent_row(old, place / "receipt.json", old.write(place / "receipt.json")))


def ledger_of(place: Path) -> str:
    """Whether the row that was being added is there; or what is wrong."""
    try:
        with open_ledger(place / "ledger.sqlite") as ledger:
            problems = [line for line in ledger.verify() if "receipt" not in line]
            rows = len(ledger.rows())
    except TenfoldError as error:
        return str(error)
    return str(problems) if problems else {1: "old", 2: "new", 3: "new and again"}.get(rows, f"{rows} rows")


def receipt_of(place: Path) -> str:
    """Which receipt is there; or what is wrong."""
    try:
        return "new" if Receipt.read(place / "receipt.json").name == "new" else "old"
    except TenfoldError as error:
        return str(error)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Points tried over all writers, and those after which nothing was lost."""
    writers = [row for row in rows if "points" in row and "control" not in row]
    controls = [row for row in rows if "control" in row]
    tried = sum(row["points"] for row in writers)
    return {
        "tried": tried,
        "held": tried - sum(row["lost"] for row in writers),
        "writers": len(writers),
        "points_of_a_whole_run": sum(row["points"] for row in writers if row["writer"] == "whole run"),
        "controls": len(controls),
        "controls_caught": sum(row["lost"] > 0 for row in controls),
    }
