"""Rows read under a limit of memory, in a process of their own: `python reader.py <file> <bytes> [<cap>]`."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from tenfold.data import lines
from tenfold.data.read import locate, read_rows
from tenfold.memory import peak_resident_bytes, reset_peak_resident, resident_bytes


def read(path: Path, most_bytes: int) -> dict[str, int | str]:
    """Read every row of `path` with so many bytes of address space above what the process holds already."""
    source = locate([str(path)])[0]
    for _ in read_rows(locate([str(path.with_name("small.jsonl"))])[0], lambda _: None):
        pass  # what reading needs anyway: imports, buffers
    address_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes + most_bytes, resource.RLIM_INFINITY))
    reset_peak_resident()
    held_bytes = resident_bytes() or 0
    found: dict[str, int | str] = {"rows": 0, "rejected": 0, "characters": 0, "says": ""}
    for row in read_rows(source, lambda _: None):
        if isinstance(row, lines.Row):
            found["rows"] = int(found["rows"]) + 1
            found["characters"] = int(found["characters"]) + len(str(row.values["text"]))
        else:
            found["rejected"] = int(found["rejected"]) + 1
            found["says"] = f"{row.source}:{row.line}: {row.detail}"
    return {**found, "peak_bytes": (peak_resident_bytes() or 0) - held_bytes}


if __name__ == "__main__":
    if len(sys.argv) > 3:
        lines.LINE_CAP_BYTES = int(sys.argv[3])
    try:
        print(json.dumps(read(Path(sys.argv[1]), int(sys.argv[2]))))
    except MemoryError:
        print(json.dumps({"says": "out of memory"}))
