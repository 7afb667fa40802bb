"""kill -9 at a random moment, then the same command again: the weights of a run that was never killed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.resumes import stop_after, when_saved
from faults.runs import drop, end_of, finish, kill, lay_out, log_of, plans, reference, start


def random_kills(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each of `count` kills, over the recipes in turn; fewer if time.monotonic() passes `until`."""
    draw = random.Random(seed)
    planned = plans(folder)
    wanted = {name: reference(plan, folder / name.replace(" ", "-")) for name, plan in planned.items()}
    longest = {name: seconds for name, (_, seconds) in wanted.items()}
    yield from ({"control": name, "identical": caught} for name, caught in controls(folder, planned, wanted))
    done = 0
    while done < count and time.monotonic() < until:
        name = list(planned)[done % len(planned)]
        run = lay_out(planned[name], folder / f"kill-{done}")
        seconds = draw.uniform(0.0, longest[name])
        pid = start(run)
        if end_of(pid, seconds) is not None:  # faster than it was: too late for a kill, which does not count
            longest[name] *= 0.9
            drop(run)
            continue
        kill(pid)
        longest[name] *= 1.02
        found = finish(run)
        same = found == wanted[name][0] and "Traceback" not in log_of(run)
        yield {
            "recipe": name,
            "killed_after_seconds": round(seconds, 3),
            "continued_at_step": continued_at(run),
            "identical": same,
            **({} if same else {"found": str(found)}),
        }
        if same:
            drop(run)
        done += 1


def continued_at(run: Path) -> int:
    """The step that the attempt after the kill began with."""
    _, there, rest = log_of(run).rpartition("continuing at step ")
    return int(rest.partition('"')[0]) if there else 0


def controls(folder: Path, planned: Any, wanted: Any) -> Iterator[tuple[str, bool]]:
    """The same with a fault put into continuing: the optimizer's moments forgotten. Must be seen as different."""
    for name, plan in planned.items():
        run = lay_out(plan, folder / f"control-{name.replace(' ', '-')}")
        end_of(start(run, lambda: when_saved(stop_after(6, signal.SIGKILL))))
        yield name, finish(run, forget_moments) == wanted[name][0]
        drop(run)


def forget_moments() -> None:
    """Spoil this process: continued runs start their optimizer anew."""
    import torch

    torch.optim.Optimizer.load_state_dict = lambda self, state: None  # pyright: ignore


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many kills, how many of them without a trace in the weights, and whether the controls were caught."""
    kills = [row for row in rows if "control" not in row]
    return {
        "tried": len(kills),
        "held": sum(row["identical"] for row in kills),
        "recipes": sorted({row["recipe"] for row in kills}),
        "steps_continued_at": sorted({row["continued_at_step"] for row in kills}),
        "controls": sum("control" in row for row in rows),
        "controls_caught": sum("control" in row and not row["identical"] for row in rows),
    }
