"""Where the time of a step goes on a GPU, kernel by kernel, and what its parts would take at the hardware's limits.

    python bench/gpu/step_profile.py --shape llama-8b --layers 8 --settings bf16 fp8-kept --micro-tokens 16384

A model of the shape's first layers, the cuts of cuts.json, a step of 8 x 2048 tokens. Some layers are enough: what is
not per layer (head, optimizer) shows as what it is. Writes results/profile_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import time
from pathlib import Path
from typing import Any

from program import go_offline

KINDS = (
    ("attention", r"flash|fmha|sdpa|cudnn|attention"),
    ("compiled passes", r"^triton_"),
    ("fp8 products", r"qqtst|f8f8|e4m3|rowwise"),
    ("thin products", r"nvjet\w*_tst_(?:(?:16|32|48)x\d+|\d+x(?:16|32|48))_|splitK"),
    ("products", r"gemm|nvjet|cutlass|wgmma|xmma|splitK|matmul"),
)
"""Kernels by name, the first that matches."""


def profile(arguments: argparse.Namespace, setting: str) -> dict[str, Any]:
    """Kernels of two steps after warm-up, and seconds of a step without the profiler."""
    import torch
    from ours import build
    from rows import steps_of_rows, tokens

    from shapes import SHAPES, make_model, model_folder

    folder = make_model(model_folder(arguments.shape, arguments.layers), arguments.shape, arguments.layers)
    arguments.setting = setting
    system = build(arguments, folder)
    rows = steps_of_rows(
        arguments.workload, arguments.rows, arguments.length, SHAPES[arguments.shape]["vocab_size"], 2, 0
    )
    prepared = [system.prepare(step) for step in rows]

    def step(number: int) -> None:
        system.optimizer.zero_grad(set_to_none=True)
        system.backward(prepared[number % 2])
        system.optimizer.step()

    started = time.perf_counter()
    step(0)
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    for number in range(1, 8):
        step(number)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(8):
        step(number)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / 8
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for number in range(2):
            step(number)
        torch.cuda.synchronize()
    kernels = [
        {"name": event.key[:160], "milliseconds": event.self_device_time_total / 2000, "calls": event.count / 2}
        for event in profiler.key_averages()
    ]
    kernels.sort(key=lambda kernel: -kernel["milliseconds"])
    totals: dict[str, float] = {}
    for kernel in kernels:
        kind = next((kind for kind, pattern in KINDS if re.search(pattern, kernel["name"], re.I)), "other")
        totals[kind] = totals.get(kind, 0.0) + kernel["milliseconds"]
    return {
        "setting": setting,
        "layers": arguments.layers,
        "tokens": tokens(rows[0]),
        "step_milliseconds": seconds * 1000,
        "first_step_seconds": first,
        "peak_allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "milliseconds_by_kind": dict(sorted(totals.items(), key=lambda item: -item[1])),
        "kernels": kernels[:70],
    }


def main() -> None:
    """Profile every setting, each after the other in this process."""
    go_offline()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-8b")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--settings", nargs="+", default=["bf16", "fp8-kept"])
    parser.add_argument("--micro-tokens", type=int, default=16384)
    parser.add_argument("--workload", choices=["fixed", "packed"], default="fixed")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--optimizer", default="adamw", help="as in a recipe")
    parser.add_argument("--bf16-weights", action="store_true", help="plain AdamW, all in bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    arguments = parser.parse_args()
    arguments.cuts = ""
    import torch
    from protocol import environment

    profiles = []
    for setting in arguments.settings:
        profiles.append(profile(arguments, setting))
        shown = {name: profiles[-1][name] for name in ("setting", "step_milliseconds", "milliseconds_by_kind")}
        print(json.dumps(shown), flush=True)
        for kernel in profiles[-1]["kernels"][:24]:
            print(f"{kernel['milliseconds']:8.2f} ms {kernel['calls']:6.0f} {kernel['name'][:100]}", flush=True)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    date = datetime.date.today().isoformat()
    body = {"benchmark": "gpu-profile", "date": date, "environment": environment(arguments.device)}
    card = torch.cuda.get_device_name().split()[-1].lower()
    path = arguments.out / f"profile_{arguments.shape}_{card}_{date}.json"
    path.write_text(json.dumps(body | {"profiles": profiles}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
