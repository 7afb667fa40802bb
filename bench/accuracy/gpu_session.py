"""One GPU: what `tenfold calibrate` finds, a few whole runs of the product, and the steps of many configurations.

The latter are all in one process, each with its own model, memory and compilation. Between two of them everything is
freed, torch's allocator emptied and its peak reset; compiled code is forgotten. So peaks and steps are those of the
configuration alone, and only Python's imports and CUDA's context are shared.

    python bench/accuracy/gpu_session.py [--total-seconds 560] [--runs-seconds 240] [--out FILE.json]

Again to go on: what has a row in the file is not measured again.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from collect import Collection, leg_row  # noqa: E402
from configurations import GPU_RUNS  # noqa: E402
from gpu_configurations import GPU, OnGpu  # noqa: E402
from recalibrate import calibrations_here, definition  # noqa: E402

ENOUGH_SECONDS = 1.5
LONGEST_SECONDS = 40.0
"""That one configuration is expected to take at most; none is begun with less left."""

RUN_SECONDS = 150.0
"""No whole run takes longer."""


def run_whole(collection: Collection, runs_seconds: float) -> None:
    """The product's own plan and train of what GPU_RUNS has no row of yet, each in processes of its own."""
    started, longest = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory(prefix="accuracy-models-") as work:
        for name in collection.missing([one.name for one in GPU_RUNS]):
            began = time.perf_counter()
            if began - started + longest > runs_seconds:
                print(f"no time left for {name}", flush=True)
                break
            row = leg_row(name, Path(work), RUN_SECONDS)
            collection.add(row)
            longest = max(longest, time.perf_counter() - began)
            parts = row.get("measured", {}).get("seconds_by_part", row.get("error"))
            print(f"{name}: {time.perf_counter() - began:.0f} s, {parts}", flush=True)


def measure(
    collection: Collection, configurations: Sequence[OnGpu], total_seconds: float, started: float, device: str
) -> None:
    """Those that have no row yet, as far as time allows; every row is kept at once."""
    began = time.perf_counter()
    import torch

    from tenfold.machine import local_machine

    machine = local_machine(1.0)
    collection.body["gpu"] = torch.cuda.get_device_name() if device == "cuda" else "none"
    collection.body["import_seconds"] = time.perf_counter() - began
    for configuration in configurations:
        if configuration.name not in collection.missing([configuration.name]):
            continue
        if total_seconds - (time.perf_counter() - started) < LONGEST_SECONDS:
            print(f"no time left for {configuration.name}", flush=True)
            break
        began = time.perf_counter()
        row = _row(configuration, machine)
        row["seconds"] = time.perf_counter() - began
        collection.add(row)
        print(_line(row), flush=True)
        _forget()


def _row(configuration: OnGpu, machine: Any) -> dict[str, Any]:
    """Measured, or the reason why not."""
    from tenfold.calibrate.probe import run_probe

    probe = configuration.probe
    row: dict[str, Any] = {
        **definition(probe),
        "name": configuration.name,
        "shape": configuration.shape,
        "recipe": configuration.recipe,
        "held_gradient": False,
        "unplanned": True,
    }
    try:
        timed = run_probe(probe, machine, ENOUGH_SECONDS)
    except BaseException as error:
        return row | {"error": f"{type(error).__name__}: {error}"[:600]}
    return row | {"measured": asdict(timed)}


def _forget() -> None:
    """Give back what the last configuration held, on the device and in the compiler."""
    import torch

    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line(row: dict[str, Any]) -> str:
    found = row.get("measured")
    if found is None:
        return f"{row['name']}: FAILED {row['error'][:200]}"
    peak = (found["peak_bytes"] or 0) / 1e9
    steps = sorted(found["step_seconds"])
    return (
        f"{row['name']}: {1000 * steps[len(steps) // 2]:,.0f} ms, {peak:.2f} GB allocated,"
        f" first {found['first_step_seconds']:.1f} s, {row['seconds']:.0f} s in all"
    )


def main() -> None:
    """Measure what has no row yet, as far as time allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--total-seconds", type=float, default=560.0)
    parser.add_argument("--runs-seconds", type=float, default=240.0, help="of these, for whole runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "plan_accuracy_gpu.json")
    arguments = parser.parse_args()
    collection = Collection(arguments.out, "plan-accuracy-gpu")
    collection.body.setdefault("date", datetime.date.today().isoformat())
    if "calibrations" not in collection.body:
        collection.body["calibrations"] = calibrations_here()
        collection.save()
    run_whole(collection, arguments.runs_seconds)
    measure(collection, GPU, arguments.total_seconds, STARTED, arguments.device)
    left = collection.missing([one.name for one in GPU])
    print(f"{len(GPU) - len(left)} of {len(GPU)} measured: {arguments.out}")


if __name__ == "__main__":
    main()
