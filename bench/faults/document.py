"""docs/reliability.md, from the promises, the matrix of faults and the newest results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from faults.fault import Fault
from faults.matrix import FAULTS
from faults.promises import SECTIONS, Promise
from measure import RESULTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
CAMPAIGNS = ("kills", "crash-points", "points", "resumes", "damages", "flips", "signals", "budgets", "lines")

HEAD = """# Reliability

What a run promises when machines die, disks fill, files rot and input is dirty; where each promise is tested; and what
was measured. Written by `python bench/reliability.py --document` from `bench/results/`; the whole long suite is
`python bench/reliability.py`, with its seed printed. Each campaign has controls, faults that must be noticed; a result
in which one was not is not shown.

Bit-identical means: on a CPU, with the same libraries, the same kind of processor and the same number of threads; a run
that continues under others says so in its receipt. Kills are of processes: what a power cut does to a disk follows from
the order of writes, which is tested, and was not tried on hardware.
"""


def write_document() -> Path:
    """Write docs/reliability.md."""
    DOCUMENT.write_text(render())
    return DOCUMENT


def render() -> str:
    """The document's text."""
    parts = [HEAD]
    for title, promises in SECTIONS:
        rows = "\n".join(f"| {one.promise} | `{one.test}` | {figure_of(one)} |" for one in promises)
        parts.append(f"## {title}\n\n| promise | test | figure |\n|---|---|---|\n{rows}\n")
    faults = "\n".join(f"| {one.name} | {places_of(one)} |" for one in FAULTS)
    parts.append(f"## Faults and where they are injected\n\n| fault | where |\n|---|---|\n{faults}\n")
    measured = "\n".join(f"| `{path.name}` | {origin(result)} |" for path, result in used_results())
    parts.append(f"## Results\n\n| file | measured |\n|---|---|\n{measured}\n")
    return "\n".join(parts)


def newest(result: str) -> Path:
    """The newest file of a benchmark. Raises FileNotFoundError if there is none."""
    paths = sorted(RESULTS.glob(f"{result}_*.json"), key=lambda path: (path.stem.rpartition("_")[2], path.name))
    if not paths:
        raise FileNotFoundError(f"bench/results/{result}_*.json")
    return paths[-1]


def figure_of(promise: Promise) -> str:
    """The promise's figure, its braces filled from the result; how many of a list, by its key and `_n`."""
    if not promise.result:
        return promise.figure
    summary: dict[str, Any] = json.loads(newest(promise.result).read_text())["summary"]
    if summary.get("controls_caught") != summary.get("controls"):
        raise ValueError(f"{promise.result}: a control was not caught: its figures mean nothing")
    counts = {f"{key}_n": len(value) for key, value in summary.items() if isinstance(value, list)}
    return promise.figure.format(**summary, **counts)


def places_of(fault: Fault) -> str:
    """The tests and campaigns of a fault, and what is to be said."""
    named = [f"`{COMMANDS[one]}`" if one in COMMANDS else f"`tests/{one}`" for one in fault.tests]
    return "; ".join([*named, fault.note] if fault.note else named)


COMMANDS = {name: f"bench/reliability.py --only {name}" for name in CAMPAIGNS}


def used_results() -> list[tuple[Path, dict[str, Any]]]:
    """Every result that the document shows, in its order."""
    paths = [newest(one.result) for _, promises in SECTIONS for one in promises if one.result]
    return [(path, json.loads(path.read_text())) for path in dict.fromkeys(paths)]


def origin(result: dict[str, Any]) -> str:
    """When, on what and with which seed a result was measured."""
    machine, versions = result["machine"], result["machine"]["versions"]
    seed, seconds = result["settings"].get("seed"), result["summary"].get("seconds")
    took = "" if seconds is None else f", {seconds:.0f} s"
    return f"{result['date']}, {machine['cpu']}, {machine['cores']} cores, torch {versions['torch']}, seed {seed}{took}"
