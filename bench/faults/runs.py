"""Small runs to be hurt, the processes that they run in, and what must be true of them in the end.

A fork server: the libraries are imported once, with one thread and without an operation of torch, and every attempt at
a run is a fork that goes through the command line.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenfold
from jobs import make_recipe
from tenfold.cli import main
from tenfold.ledger import open_ledger
from tenfold.planner import Plan
from tenfold.receipt import Receipt

LONGEST_SECONDS = 120.0
"""Until an attempt counts as hung: a hundred times what one takes."""

TRAIN = {"epochs": 3, "batch_size": 8, "log_every_steps": 1, "save_every_steps": 2, "eval_every_steps": 5}
RECIPES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "classify": ("classify", "bert", {"pack": False, "lora": {"rank": 4, "dropout": 0.1}}, {}),
    "sft packed": ("sft", "llama", {"pack": True, "lora": {"rank": 4, "dropout": 0.1}}, {}),
    "text accumulated": ("text", "gpt2", {"pack": False, "lora": False}, {"micro_batch_size": 2, "dropout": 0.1}),
}
"""By name: task, family, cuts, and what is different in `train`. Forty rows: fifteen steps in three shuffled epochs."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: everything in it is the same for every run of a recipe that went well."""

    weights_sha256: str
    status: str
    steps: float | None
    evaluations: tuple[tuple[int, float | None], ...]
    """Step and loss of each: a lost or repeated one shows."""
    ledger: tuple[str, ...]
    """The status of its last row, and whatever the ledger's own check has to say."""


def plans(folder: Path, **train: Any) -> dict[str, Plan]:
    """A plan of each recipe, with its model and data in `folder`."""
    made: dict[str, Plan] = {}
    for name, (task, family, cuts, changes) in RECIPES.items():
        home = folder / name.replace(" ", "-")
        made[name] = tenfold.plan(make_recipe(home, task, family, cuts=cuts, train={**TRAIN, **changes, **train}))
    return made


def lay_out(plan: Plan, folder: Path) -> Path:
    """A folder for one run of `plan`: `plan.json`, and in time `run`, `ledger.sqlite` and `log`."""
    folder.mkdir(parents=True)
    output = plan.recipe.output.model_copy(
        update={"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")}
    )
    placed = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"output": output})})
    placed.write(folder / "plan.json")
    return folder


def start(folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that trains or continues `folder`; its id. `prepare` runs in it first."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        prepare()
        sys.argv = ["tenfold", "train", str(folder / "plan.json"), "--json"]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def end_of(pid: int, within_seconds: float | None = None) -> int | None:
    """The exit code of a child, negative for a signal; None if it did not end in time, or counts as hung."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], LONGEST_SECONDS if within_seconds is None else within_seconds)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ready else None


def kill(pid: int) -> None:
    """kill -9, and wait."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finish(folder: Path, prepare: Callable[[], None] = lambda: None) -> Outcome:
    """Run or continue `folder` to its end."""
    pid = start(folder, prepare)
    code = end_of(pid)
    if code is None:
        kill(pid)
    if code != 0:
        return Outcome("", f"exit code {code}: {log_of(folder)[-500:]}", None, (), ())
    return outcome(folder)


def outcome(folder: Path) -> Outcome:
    """What stands in a finished run's folder."""
    found = [
        folder / "run" / name for name in ("adapter-last/adapter_model.safetensors", "model-last/model.safetensors")
    ]
    weights = next(path for path in found if path.is_file())
    receipt = Receipt.read(folder / "run" / "receipt.json")
    with open_ledger(folder / "ledger.sqlite") as ledger:
        last = ledger.rows()[-1].row
        said = (str(last.status), str(last.run_id == receipt.run_id), *ledger.verify())
    evaluations = tuple((point.step, point.metrics["loss"]) for point in receipt.curve if point.metrics)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Outcome(sha256, receipt.status, receipt.measured("steps"), evaluations, said)


def log_of(folder: Path) -> str:
    """What all attempts in `folder` have said."""
    return (folder / "log").read_text(errors="replace")


def reference(plan: Plan, folder: Path) -> tuple[Outcome, float]:
    """The run without a fault, and its seconds. Run twice, so that a run that is not repeatable shows at once."""
    outcomes: list[Outcome] = []
    seconds = 0.0
    for number in (1, 2):
        started = time.monotonic()
        outcomes.append(finish(lay_out(plan, folder / f"reference-{number}")))
        seconds = time.monotonic() - started
    if outcomes[0] != outcomes[1] or outcomes[0].status != "done":
        raise SystemExit(f"{plan.recipe.task}: two runs without a fault differ, or failed: {outcomes}")
    return outcomes[0], seconds


def drop(folder: Path) -> None:
    """Forget a run that went as it should."""
    shutil.rmtree(folder, ignore_errors=True)
