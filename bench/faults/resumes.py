"""One run that stops and continues again and again: every row once an epoch, in the order of a run without a stop."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.runs import drop, end_of, finish, kill, lay_out, log_of, plans, reference, start

STEPS_PER_EPOCH, ROWS = 5, 40


def chained(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row a recipe: one run stopped `count` times, killed or by SIGTERM in turn, each time after a step or two."""
    epochs = 2 + math.ceil(1.4 * count / STEPS_PER_EPOCH)
    planned = plans(folder, epochs=epochs, save_every_steps=1)
    for number, (name, plan) in enumerate(planned.items()):
        if time.monotonic() > until:
            return
        wanted, _ = reference(plan, folder / name.replace(" ", "-"))
        expected = rows_of(lay_out(plan, folder / f"listed-{number}"), epochs)
        for skipped in (False, True):
            run = lay_out(plan, folder / f"chain-{number}-{skipped}")
            row = one_chain(run, 1 if skipped else count, until, random.Random(seed + number), spoil=skipped)
            seen = read_rows(run)
            same = row.pop("outcome") == wanted and seen == expected
            row |= {"rows_lost_or_repeated": sum(seen.get(step) != rows for step, rows in expected.items())}
            yield {"recipe": name, "control": skipped, **row, "identical": same}
            drop(run)


def one_chain(run: Path, count: int, until: float, draw: random.Random, *, spoil: bool) -> dict[str, Any]:
    """Stop a run `count` times, then let it end. `spoil`: the control, a run that continues one step too far."""
    stops = 0
    step = 0
    while stops < count and time.monotonic() < until:
        step += draw.choice((1, 1, 1, 2)) if stops < count - 1 else 1
        number = signal.SIGKILL if stops % 2 == 0 else signal.SIGTERM
        pid = start(run, lambda at=step, by=number, bad=spoil and stops > 0: both(run, stop_after(at, by), bad))
        code = end_of(pid)
        if code is None:
            kill(pid)
        if code not in (-signal.SIGKILL, 75):
            return {"stops": stops, "code": code, "said": log_of(run)[-300:], "outcome": None}
        stops += 1
    return {"stops": stops, "outcome": finish(run, lambda: both(run, None, spoil))}


def both(run: Path, stop: Callable[[Any], None] | None, spoil: bool) -> None:
    """Prepare this process: note the rows of each step, stop where told."""
    note_rows(run / "rows")
    if spoil:
        skip_a_step()
    if stop is not None:
        when_saved(stop)


def when_saved(stop: Callable[[Any], None]) -> None:
    """Let this process call `stop` with its run whenever a state was saved."""
    from tenfold.run import run as module

    save = module.Run.save

    def then_stop(self: Any) -> None:
        save(self)
        stop(self)

    module.Run.save = then_stop  # pyright: ignore


def stop_after(step: int, number: signal.Signals) -> Callable[[Any], None]:
    """End this process by a signal once the state of `step` is saved."""

    def stop(run: Any) -> None:
        if run.progress.step >= step and run.stop.requested is None:
            os.kill(os.getpid(), number)

    return stop


def note_rows(path: Path) -> None:
    """Append to `path` which rows every finished step has learned from."""
    from tenfold.run import loop
    from tenfold.run import run as module

    accumulate, after_step = loop.accumulate, module.Run.after_step
    current: list[list[int]] = []

    def watched(rig: Any, rows: Any, batches: Any, tell: Any) -> Any:
        current[:] = [[row.line for row in rows]]
        return accumulate(rig, rows, batches, tell)

    def noted(self: Any, report: Any) -> bool:
        with path.open("a") as file:
            file.write(json.dumps([report.step, current[0]]) + "\n")
        return after_step(self, report)

    loop.accumulate = watched  # pyright: ignore
    module.Run.after_step = noted  # pyright: ignore


def skip_a_step() -> None:
    """Spoil this process: a continued run takes its rows from one step further on."""
    from tenfold.run import loop

    lay_out_step = loop._lay_out

    loop._lay_out = lambda rig, samples, schedule, step: lay_out_step(  # pyright: ignore
        rig, samples, schedule, min(step + 1, schedule.total_steps - 1) if step < schedule.total_steps else step
    )


def rows_of(run: Path, epochs: int) -> dict[int, list[int]]:
    """The rows of each step of a run without a stop."""
    finish(run, lambda: note_rows(run / "rows"))
    found = read_rows(run)
    for epoch in range(epochs):
        each = sorted(line for step in steps_of(epoch) for line in found[step])
        if each != list(range(1, ROWS + 1)):
            raise SystemExit(f"epoch {epoch + 1} of the run without a stop does not hold every row once: {each}")
    drop(run)
    return found


def steps_of(epoch: int) -> range:
    """The steps of an epoch, counted from 1."""
    return range(STEPS_PER_EPOCH * epoch + 1, STEPS_PER_EPOCH * (epoch + 1) + 1)


def read_rows(run: Path) -> dict[int, list[int]]:
    """By step; of a step done twice, the second time, which is the one that counts."""
    lines = (run / "rows").read_text().splitlines()
    return dict(map(json.loads, lines))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The stops of each chain, and what was lost over all of them."""
    chains = [row for row in rows if not row["control"]]
    controls = [row for row in rows if row["control"]]
    return {
        "tried": len(chains),
        "held": sum(row["identical"] for row in chains),
        "stops_in_one_run": min((row["stops"] for row in chains), default=0),
        "stops": sum(row["stops"] for row in chains),
        "rows_lost_or_repeated": sum(row["rows_lost_or_repeated"] for row in chains),
        "controls": len(controls),
        "controls_caught": sum(not row["identical"] for row in controls),
    }
