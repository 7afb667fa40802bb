"""A whole run disturbed at every change that it makes to the disk, from its lock to its ledger row.

At each point three things: the process dies; the disk is full from there on; one call fails with an I/O error. A run
that lives ends with one line, or well; and the same command, when all is well again, ends as a run without a fault.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crashes
from faults.runs import Outcome, drop, end_of, finish, lay_out, log_of, plans, reference, start
from tenfold.planner import Plan
from tenfold.run import checkpoint, tally

FAULTS = ("kill", "full", "io")


class Failing(crashes.Countdown):
    """Makes calls fail, instead of ending the process: once, or from the given point on."""

    def __init__(self, left: int, number: int, *, for_good: bool) -> None:
        super().__init__(left)
        self._number, self._for_good = number, for_good

    def point(self) -> None:
        if self.left == 0 or (self._for_good and self.left < 0):
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number))
        self.left -= 1

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._for_good or event in ("open", "os.mkdir", "os.link"):  # a full disk still deletes and renames
            super().audit(event, args)


def disturbed(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each fault at each point, or at `count` of them, drawn; fewer if time runs out."""
    settings = {"epochs": None, "max_steps": 2, "save_every_steps": 1, "eval_every_steps": 2}
    plan = plans(folder, **settings)["sft packed"]
    wanted, _ = reference(plan, folder / "undisturbed")
    points = count_points(lay_out(plan, folder / "counted"))
    cases = [(fault, at) for at in range(points) for fault in FAULTS]
    for fault, at in random.Random(seed).sample(cases, min(count, len(cases))):
        if time.monotonic() > until:
            break
        yield one_fault(lay_out(plan, folder / f"{fault}-{at}"), fault, at, wanted)
    yield {"points_of_the_run": points, "faults": len(cases)}
    yield {"control": "checkpoints emptied", "held": emptied(plan, folder / "control", wanted)}


def one_fault(run: Path, fault: str, at: int, wanted: Outcome) -> dict[str, Any]:
    """Disturb a run at a point, then let it end."""
    code = end_of(start(run, lambda: arm(fault, at)))
    said = [line for line in log_of(run).splitlines() if not line.startswith("{")]
    named = [line for line in said if line.startswith("tenfold: ")]
    clean = code == crashes.CRASH if fault == "kill" else code == 0 or (code in (1, 2) and len(named) == 1)
    found = finish(run)
    held = clean and found == wanted and "Traceback" not in log_of(run)
    if held:
        drop(run)
    row = {"fault": fault, "point": at, "code": code, "held": held}
    return row if held else {**row, "said": "\n".join(said)[-2000:], "found": str(found)}


def arm(fault: str, at: int) -> None:
    """Disturb this process at its `at`-th point."""
    countdown = {
        "kill": lambda: crashes.Countdown(at),
        "full": lambda: Failing(at, errno.ENOSPC, for_good=True),
        "io": lambda: Failing(at, errno.EIO, for_good=False),
    }[fault]()
    listen(countdown)


def listen(countdown: crashes.Countdown) -> None:
    """Let this process tell the countdown of each point. Notes of what was spent, which come by the clock, are left
    out but for the first and the last: a point is the same one in every run."""
    crashes.checkpoint = checkpoint  # pyright: ignore
    tally._EVERY_SECONDS = float("inf")
    crashes.arm(countdown, crashes.Scenario(ignore, ignore, lambda folder: ""))


def ignore(folder: Path) -> None:
    """Nothing to prepare."""


class Counting(crashes.Countdown):
    """Counts the points, a byte each."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(-1)  # not 0, at which a file is torn
        self._descriptor = descriptor

    def point(self) -> None:
        os.write(self._descriptor, b".")


def count_points(run: Path) -> int:
    """How many points a run without a fault has."""
    path = run / "points"

    def count() -> None:
        listen(Counting(os.open(path, os.O_WRONLY | os.O_CREAT)))

    finish(run, count)
    return path.stat().st_size


def emptied(plan: Plan, run: Path, wanted: Outcome) -> bool:
    """The control: while the run is down, its checkpoints are spoilt beyond what can be mended. Must be seen."""
    end_of(start(lay_out(plan, run), lambda: arm("kill", 60)))
    for path in (run / "run" / "checkpoints").rglob("*.safetensors"):
        path.write_bytes(b"")
    return finish(run) == wanted


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Faults tried and survived, by kind."""
    faults = [row for row in rows if "fault" in row]
    controls = [row for row in rows if "control" in row]
    return {
        "tried": len(faults),
        "held": sum(row["held"] for row in faults),
        "points_of_the_run": next(row["points_of_the_run"] for row in rows if "points_of_the_run" in row),
        "by_fault": {fault: sum(row["fault"] == fault for row in faults) for fault in FAULTS},
        "controls": len(controls),
        "controls_caught": sum(not row["held"] for row in controls),
    }
