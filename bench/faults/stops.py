"""SIGTERM while a run loads, tokenises, trains, evaluates or saves: a clean stop, and later the same weights."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.runs import drop, end_of, finish, kill, lay_out, log_of, plans, reference, start

PHASES = {
    "load": ("tenfold.run.train", "_build"),
    "tokenise": ("tenfold.run.train", "load_dataset"),
    "train": ("tenfold.run.loop", "accumulate"),
    "evaluate": ("tenfold.run.run", "evaluate_in_memory"),
    "save": ("tenfold.run.run", "save_state"),
}
"""By phase: the function that it is, where the run looks it up."""

LONGEST_SECONDS = 10.0
"""From the signal to the end of the process, as spot machines of most providers allow at the least."""


def terminations(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each of `count` signals, over phases and recipes in turn; fewer if time runs out."""
    draw = random.Random(seed)
    planned = plans(folder)
    wanted = {name: reference(plan, folder / name.replace(" ", "-"))[0] for name, plan in planned.items()}
    names, phases = list(planned), list(PHASES)
    for number in range(count):
        if time.monotonic() > until:
            return
        name, phase = names[number % len(names)], phases[number % len(phases)]
        run = lay_out(planned[name], folder / f"stop-{number}")
        row = one_stop(run, phase, draw)
        found = finish(run)
        held = row["code"] == 75 and row["seconds"] <= LONGEST_SECONDS and found == wanted[name]
        held = held and "Traceback" not in log_of(run)
        yield {"recipe": name, "phase": phase, **row, "held": held, **({} if held else {"found": str(found)})}
        if held:
            drop(run)
    yield {"control": "a process that does not listen", "code": one_stop_unheard(planned[names[0]], folder, draw)}


def one_stop(run: Path, phase: str, draw: random.Random, *, deaf: bool = False) -> dict[str, Any]:
    """Send SIGTERM a moment after a phase begins, for the first time or a later one."""
    reading, writing = os.pipe()
    pid = start(run, lambda: announce(phase, writing, deaf=deaf))
    os.close(writing)
    times = 1 if phase in ("load", "tokenise") else draw.randint(1, 9) if phase == "train" else draw.randint(1, 2)
    for _ in range(times):
        if not select.select([reading], [], [], 60.0)[0] or not os.read(reading, 1):
            break
    time.sleep(draw.uniform(0.0, 0.004))
    started = time.monotonic()
    try:
        os.kill(pid, signal.SIGTERM)
    finally:
        code = end_of(pid)
        if code is None:
            kill(pid)
        os.close(reading)
    return {"code": code, "seconds": round(time.monotonic() - started, 3)}


def announce(phase: str, descriptor: int, *, deaf: bool = False) -> None:
    """Write a byte whenever the phase begins in this process. `deaf`: no handler is installed, as in the control."""
    import importlib

    module = importlib.import_module(PHASES[phase][0])
    function = getattr(module, PHASES[phase][1])

    def announced(*arguments: Any, **named: Any) -> Any:
        os.write(descriptor, b".")
        return function(*arguments, **named)

    setattr(module, PHASES[phase][1], announced)
    if deaf:
        from tenfold.run import stop

        stop._signals = lambda: ()  # pyright: ignore


def one_stop_unheard(plan: Any, folder: Path, draw: random.Random) -> int | None:
    """The exit code where the signal is left to its default: a death, not a stop."""
    return one_stop(lay_out(plan, folder / "unheard"), "train", draw, deaf=True)["code"]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Signals sent and heeded, by phase, and the slowest stop."""
    signals = [row for row in rows if "control" not in row]
    controls = [row for row in rows if "control" in row]
    return {
        "tried": len(signals),
        "held": sum(row["held"] for row in signals),
        "by_phase": {phase: sum(row["phase"] == phase for row in signals) for phase in PHASES},
        "slowest_seconds": max((row["seconds"] for row in signals), default=None),
        "controls": len(controls),
        "controls_caught": sum(row["code"] != 75 for row in controls),
    }
