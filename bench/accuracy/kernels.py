"""Kernels of a step of some of the configurations that gpu_session.py measures, longest first.

    python bench/accuracy/kernels.py "smollm2-360m 128 x mixed:180 lora pack8192 compile"

What a plan counts of a step is set beside what its kernels take. Writes results/kernels_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu")]

from gpu_configurations import GPU, OnGpu  # noqa: E402

WARM, PROFILED = 8, 3
"""Steps: shapes are compiled and recorded in the first."""


def kernels(configuration: OnGpu) -> dict[str, Any]:
    """Seconds of every step, and by kernel how often it ran in one and for how long."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from tenfold.calibrate.probe import build_probe, train_probe
    from tenfold.machine import local_machine
    from tenfold.run.loop import StepReport

    probe = configuration.probe
    rig = build_probe(probe, local_machine(1.0))
    seconds: list[float] = []
    found = profile(activities=[ProfilerActivity.CUDA], acc_events=True)

    def after_step(report: StepReport) -> bool:
        seconds.append(report.seconds)
        torch.cuda.synchronize()
        if len(seconds) == WARM:
            found.start()
        if len(seconds) == WARM + PROFILED:
            found.stop()
        return len(seconds) < WARM + PROFILED

    train_probe(probe, rig, after_step)
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in found.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            total[event.name][0] += 1 / PROFILED
            total[event.name][1] += event.device_time / 1e3 / PROFILED
    rows = [{"kernel": name, "times": times, "ms": ms} for name, (times, ms) in total.items()]
    return {"name": configuration.name, "step_seconds": seconds, "kernels": sorted(rows, key=lambda row: -row["ms"])}


def main() -> None:
    """Those named; one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[one.name for one in GPU], metavar="NAME")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    import protocol

    date = datetime.date.today().isoformat()
    rows = [kernels(one) for one in GPU if one.name in arguments.names]
    body = {"benchmark": "kernels", "date": date, "environment": protocol.environment("cuda"), "rows": rows}
    (arguments.out / f"kernels_{date}.json").write_text(json.dumps(body, indent=1) + "\n")
    for row in rows:
        print(row["name"], f"{1e3 * row['step_seconds'][WARM - 1]:.1f} ms a step")
        for kernel in row["kernels"][:20]:
            print(f"  {kernel['ms']:8.2f} ms {kernel['times']:8.0f} x {kernel['kernel'][:90]}")


if __name__ == "__main__":
    main()
