"""What the benchmarks share: fresh processes, the machine's name, medians, and one JSON file per run of a benchmark."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("TENFOLD_SHARED") or Path(__file__).resolve().parents[2] / "shared")
"""Models and data of the benchmarks: the folder that TENFOLD_SHARED names, or the one beside this checkout."""
PACKAGES = ("tenfold", "torch", "transformers", "tokenizers", "trl", "peft")


def fresh(command: Sequence[str]) -> str:
    """The standard output of a command in a process of its own; its errors end the benchmark."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def tenfold_command(*arguments: str) -> list[str]:
    """The command line of this checkout's tenfold, with this interpreter."""
    return [sys.executable, "-m", "tenfold", *arguments]


def machine() -> dict[str, Any]:
    """Hardware and versions, for the head of every result."""
    with Path("/proc/cpuinfo").open() as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def interval(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes, and the mean with its 95 % t-interval (Student's t for the sample's size)."""
    students_t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
    summary = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    if len(values) in students_t:
        half = students_t[len(values)] * statistics.stdev(values) / len(values) ** 0.5
        summary |= {
            "mean": statistics.mean(values),
            "low": statistics.mean(values) - half,
            "high": statistics.mean(values) + half,
        }
    return summary


def write_result(
    name: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    head: Mapping[str, Any] | None = None,
) -> Path:
    """`results/<name>_<cores>cores_<date>.json`."""
    head = head or machine()
    date = datetime.date.today().isoformat()
    path = RESULTS / f"{name}_{head['cores']}cores_{date}.json"
    body = {
        "benchmark": name,
        "date": date,
        "machine": head,
        "settings": dict(settings),
        "summary": dict(summary),
        "rows": list(rows),
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path
