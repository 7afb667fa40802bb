"""The newest checkpoint spoilt in thirteen ways, an older one beside it: the run goes on from that, to the same end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.resumes import both, stop_after
from faults.runs import drop, end_of, finish, lay_out, log_of, plans, reference, start

TENSORS, STATE, MANIFEST = "tensors-00001.safetensors", "state.json", "manifest.json"


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path, Path], object]:
    """Change the bytes of one file of the newest checkpoint."""
    return lambda newest, older: (newest / name).write_bytes(change((newest / name).read_bytes()))


def flip(content: bytes) -> bytes:
    """One bit of the last third, where a tensor's values are."""
    at = len(content) * 2 // 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "tensors missing": lambda newest, older: (newest / TENSORS).unlink(),
    "state missing": lambda newest, older: (newest / STATE).unlink(),
    "manifest missing": lambda newest, older: (newest / MANIFEST).unlink(),
    "all files missing": lambda newest, older: (shutil.rmtree(newest), newest.mkdir()),
    "tensors empty": rewrite(TENSORS, lambda content: b""),
    "tensors cut in half": rewrite(TENSORS, lambda content: content[: len(content) // 2]),
    "tensors one byte short": rewrite(TENSORS, lambda content: content[:-1]),
    "one bit of the tensors": rewrite(TENSORS, flip),
    "one bit of the state": rewrite(STATE, flip),
    "state cut in half": rewrite(STATE, lambda content: content[: len(content) // 2]),
    "manifest empty": rewrite(MANIFEST, lambda content: b""),
    "tensors of the step before": lambda newest, older: shutil.copy(older / TENSORS, newest / TENSORS),
    "a copy of the step before": lambda newest, older: (shutil.rmtree(newest), shutil.copytree(older, newest)),
}


def damaged(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row a damage, all of them or `count`, drawn."""
    chosen = sorted(random.Random(seed).sample(list(DAMAGES), min(count, len(DAMAGES))))
    plan = plans(folder)["sft packed"]
    wanted, _ = reference(plan, folder / "undamaged")
    for number, name in enumerate(chosen):
        if time.monotonic() > until:
            return
        run = lay_out(plan, folder / f"damage-{number}")
        end_of(start(run, lambda here=run: both(here, stop_after(8, signal.SIGKILL), False)))
        older, newest = sorted((run / "run" / "checkpoints").iterdir())[-2:]
        DAMAGES[name](newest, older)
        same = finish(run) == wanted
        named = f"{newest.name}: " in log_of(run) and f"using {older.name}" in log_of(run)
        yield {"damage": name, "identical": same, "named": named}
        drop(run)
    yield {"control": "no manifest read", "identical": unchecked(plan, folder / "control") == wanted}


def unchecked(plan: Any, folder: Path) -> Any:
    """A flipped bit where nothing looks at hashes: the run ends, elsewhere."""
    run = lay_out(plan, folder)
    end_of(start(run, lambda: both(run, stop_after(8, signal.SIGKILL), False)))
    newest = max((run / "run" / "checkpoints").iterdir())
    rewrite(TENSORS, flip)(newest, newest)

    def blind() -> None:
        from tenfold.run import checkpoint

        checkpoint._verify_file = lambda path, expected, *, contents: None

    return finish(run, blind)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Damages tried, and runs that went on from the checkpoint before, named the damage and ended alike."""
    damages = [row for row in rows if "damage" in row]
    controls = [row for row in rows if "control" in row]
    return {
        "tried": len(damages),
        "held": sum(row["identical"] and row["named"] for row in damages),
        "controls": len(controls),
        "controls_caught": sum(not row["identical"] for row in controls),
    }
