"""Lines that are long, or many: read in less than twice the cap of memory; one that just fits, in four times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenfold.data.lines import LINE_CAP_BYTES

READER = Path(__file__).with_name("reader.py")
LONG_BYTES = 10_000_000
"""Of a line that is long, and read."""


def long_lines(folder: Path, count: int, until: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each file: a line of 10 MB, one of a thousand times `count` bytes, and `count` short ones.

    A line over the cap is never decoded, so what it holds, here mostly zeros that take no space, is of no account.
    """
    del until, seed  # it takes seconds, and nothing is drawn
    too_long_bytes = max(1000 * count, 4 * LINE_CAP_BYTES)
    fitting_bytes = LINE_CAP_BYTES - len('{"text": ""}')
    too_long = {"rows": 1, "rejected": 1, "characters": 1, "says": "one.jsonl:1: the line is longer than 32 MiB"}
    cases: dict[str, tuple[Path, dict[str, Any], int]] = {
        "one line of 10 MB": (lay_out(folder, LONG_BYTES), read_whole(2, LONG_BYTES + 1), 2),
        "one line far over the cap": (lay_out(folder, too_long_bytes), too_long, 2),
        "many short lines": (lay_out(folder, 1, count), read_whole(count, count), 2),
        "one line that just fits": (lay_out(folder, fitting_bytes, 1), read_whole(1, fitting_bytes), 4),
    }
    for name, (path, wanted, caps) in cases.items():
        started = time.monotonic()
        found = read_limited(path, caps * LINE_CAP_BYTES)
        held = {key: found.get(key) for key in wanted} == wanted and found["peak_bytes"] < caps * LINE_CAP_BYTES
        yield {
            "case": name,
            "caps": caps,
            "size_bytes": path.stat().st_size,
            **found,
            "held": held,
            "seconds": round(time.monotonic() - started, 1),
        }
    path = cases["one line far over the cap"][0]
    yield {"control": "a reader without the cap", **read_limited(path, 2 * LINE_CAP_BYTES, cap_bytes=2**40)}


def read_whole(rows: int, characters: int) -> dict[str, Any]:
    """What is read of a file without a fault."""
    return {"rows": rows, "rejected": 0, "characters": characters}


def lay_out(folder: Path, length: int, times: int = 0) -> Path:
    """A file of `times` equal rows with texts of so many characters; 0: of one, which has holes, and a short one."""
    place = folder / f"{length}-{times}"
    place.mkdir()
    (place / "small.jsonl").write_text('{"text": "x"}\n')
    path = place / "one.jsonl"
    with path.open("wb") as file:
        if times:
            file.write(b'{"text": "%b"}\n' % (b"x" * length) * times)
        else:
            file.write(b'{"text": "' + b"x" * min(length, LONG_BYTES))
            file.seek(10 + length)
            file.write(b'"}\n{"text": "y"}\n')
    return path


def read_limited(path: Path, most_bytes: int, cap_bytes: int | None = None) -> dict[str, Any]:
    """What a process read that has so much address space for it."""
    command = [sys.executable, str(READER), str(path), str(most_bytes)]
    more = [] if cap_bytes is None else [str(cap_bytes)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or json.dumps({"says": done.stderr[-300:]}))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Files read, and the most memory that one took: of those held to twice the cap, and of the line that just fits."""
    files = [row for row in rows if "control" not in row]
    controls = [row for row in rows if "control" in row]
    return {
        "tried": len(files),
        "held": sum(row["held"] for row in files),
        "longest_bytes": max(row["size_bytes"] for row in files),
        "most_lines": max(row.get("rows", 0) for row in files),
        "peak_mib": _peak_mib(files, 2),
        "fitting_mib": _peak_mib(files, 4),
        "controls": len(controls),
        "controls_caught": sum(row["says"] == "out of memory" for row in controls),
    }


def _peak_mib(files: list[dict[str, Any]], caps: int) -> float:
    return round(max(row.get("peak_bytes", 0) for row in files if row["caps"] == caps) / 2**20, 1)
