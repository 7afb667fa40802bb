"""One bit of one file of a checkpoint flipped: seen, before anything of it is used."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults.runs import finish, lay_out, plans
from tenfold.run import checkpoint


def bit_flips(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row a kind of file: how many single bits were flipped in it, how many of those were seen."""
    draw = random.Random(seed)
    run = lay_out(plans(folder)["sft packed"], folder / "flips")
    finish(run)
    state = sorted((run / "run" / "checkpoints").iterdir())[-1]
    step = int(state.name.removeprefix("step-"))
    files = sorted(path for path in state.iterdir())
    contents = {path: path.read_bytes() for path in files}
    rows = {path: {"file": path.name, "bytes": len(contents[path]), "tried": 0, "held": 0} for path in files}
    for number in range(count):
        if time.monotonic() > until:
            break
        path = files[number % len(files)]
        rows[path]["tried"] += 1
        rows[path]["held"] += seen(state, step, path, flipped(contents[path], draw))
        path.write_bytes(contents[path])
    yield from rows.values()
    yield {"control": "undamaged", "seen": seen(state, step, files[0], contents[files[0]])}
    yield {"control": "safetensors alone", "seen": seen_by_library(files[-1], flipped(contents[files[-1]], draw))}


def flipped(content: bytes, draw: random.Random) -> bytes:
    """`content` with one random bit turned."""
    position = draw.randrange(8 * len(content))
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def seen(state: Path, step: int, path: Path, content: bytes) -> bool:
    """Whether a state in which `path` holds `content` is said to be damaged."""
    path.write_bytes(content)
    try:
        checkpoint._verify(state, step)
    except checkpoint._DamagedError:
        return True
    return False


def seen_by_library(path: Path, content: bytes) -> bool:
    """Whether safetensors itself objects to a flip among the values: it has no checksum, and must not."""
    from safetensors.torch import load

    header = 8 + int.from_bytes(content[:8], "little")
    good = bytearray(content)
    good[header + 5] ^= 1
    try:
        load(bytes(good))
    except Exception:
        return True
    return False


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Flips tried and seen; the controls are a sound state, and a library without checksums."""
    files = [row for row in rows if "file" in row]
    controls = [row for row in rows if "control" in row]
    return {
        "tried": sum(row["tried"] for row in files),
        "held": sum(row["held"] for row in files),
        "kinds_of_file": len(files),
        "controls": len(controls),
        "controls_caught": sum(not row["seen"] for row in controls),
    }
