"""The longest row that a system trains on at batch 1, found by trying; each try is a process of its own.

    python bench/gpu/longest.py --shape llama-8b --systems unsloth-qlora ours-nf4-fp8-offload --memory-gib 24

With --memory-gib this process holds the rest of the card, so that each system finds a smaller one: on a whole H200 the
longest row would take many minutes a step. Two lengths that fit say what a token costs; the next try is what the memory
would then hold, and a length that did not fit is answered by one nearer to those that did, until the two are within 6 %
or the tries are used up. A length fits if three optimizer steps ran. Writes results/longest_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path
from typing import Any

from run import SYSTEMS, call, command
from shapes import SHAPES, model_folder

HERE = Path(__file__).resolve().parent
NEAR = 0.06
MULTIPLE = 4096
"""Lengths are so many tokens apart."""


def next_length(tried: list[tuple[int, int | None]], memory_bytes: int, first: int) -> int | None:
    """What to try after `tried`, each a length with its peak bytes or None if it did not fit; None once it is found."""
    held = sorted((length, peak) for length, peak in tried if peak is not None)
    failed = min((length for length, peak in tried if peak is None), default=None)
    if not held:
        return first if failed is None else max(MULTIPLE, _rounded(failed / 2))
    longest, most = held[-1]
    if len(held) > 1 and most > held[-2][1]:
        each = (most - held[-2][1]) / (longest - held[-2][0])
        wanted = longest + (0.97 * memory_bytes - most) / each
    else:
        wanted = 2.0 * longest
    if failed is not None:
        wanted = min(wanted, (longest + failed) / 2)
        if failed - longest <= NEAR * longest:
            return None
    found = _rounded(wanted)
    return found if found > longest * (1 + NEAR / 2) else None


def _rounded(length: float) -> int:
    return int(length) // MULTIPLE * MULTIPLE


def attempt(arguments: argparse.Namespace, system: str, length: int, work: Path) -> dict[str, Any]:
    """Three steps of one row of `length` tokens."""
    out, log = work / f"{system}-{length}.json", work / f"{system}-{length}.log"
    name = f"{system}@{length}" if system.startswith("ours-") else system
    words = [
        *command(name), "--model", str(model_folder(arguments.shape)), "--shape", arguments.shape, "--name", name,
        "--rows", "1", "--length", str(length), "--steps", "1", "--timed-seconds", "0", "--budget-seconds", "1",
        "--device", arguments.device, "--out", str(out),
    ]  # fmt: skip
    fault = call(words, arguments.try_seconds, log)
    row: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if fault and "error" not in row:
        row["error"] = fault
    return {"system_name": system, "length": length, **row}


def main() -> None:
    """Every system in turn; what there is stays if the call is cut short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--systems", nargs="+", required=True, help=f"ours-NAME, {', '.join(SYSTEMS)}")
    parser.add_argument("--first", type=int, default=32768)
    parser.add_argument("--tries", type=int, default=5, help="of each system, at most")
    parser.add_argument("--try-seconds", type=float, default=150.0)
    parser.add_argument("--total-seconds", type=float, default=560.0)
    parser.add_argument("--memory-gib", type=float, default=0.0, help="that a system finds free; all of it if left out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    began = time.perf_counter()
    work = Path("/tmp/tenfold-bench/longest")
    work.mkdir(parents=True, exist_ok=True)
    if fault := call(["shapes.py", "--shape", arguments.shape, "--device", arguments.device], 300, work / "model.log"):
        raise SystemExit(f"the model could not be written: {fault}")
    memory_bytes, _held = _limited(arguments.memory_gib)
    date = datetime.date.today().isoformat()
    path = arguments.out / f"longest_{arguments.shape}_{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = {"benchmark": "longest", "date": date, "shape": arguments.shape, "rows": []}
    body |= {"free_bytes": memory_bytes, "memory_gib": arguments.memory_gib}
    for system in arguments.systems:
        tried: list[tuple[int, int | None]] = []
        while len(tried) < arguments.tries and (length := next_length(tried, memory_bytes, arguments.first)):
            if time.perf_counter() - began > arguments.total_seconds - arguments.try_seconds:
                break
            row = attempt(arguments, system, length, work)
            tried.append((length, None if "error" in row else row.get("peak_allocated_bytes", 0)))
            body["rows"].append(row)
            path.write_text(json.dumps(body, indent=1) + "\n")
            print(system, length, row.get("error", f"{(tried[-1][1] or 0) / 2**30:.1f} GiB")[:200], flush=True)
    print(path)


def _limited(memory_gib: float) -> tuple[int, Any]:
    """Bytes of the GPU that other processes find free, and what holds the rest while it lives."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    if not memory_gib:
        return free, None
    held = torch.empty(free - int(memory_gib * 2**30), dtype=torch.uint8, device="cuda")
    return torch.cuda.mem_get_info()[0], held


if __name__ == "__main__":
    main()
