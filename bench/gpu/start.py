"""From the start of a process to the end of its first step: once with empty caches of compiled code, then again.

    python bench/gpu/start.py --shape llama-8b --settings bf16 fp8-kept --micro-tokens 16384

Each start is a process of its own. The model's files were just written, as they would have been just downloaded. Beside
the seconds stand the peaks of memory while loading, what torch's caches of compiled code had, and whether libraries
lie as bytecode, as pip installs them: an image without it compiles them in every process. With --profile also
the functions that took most, the profiler's own cost in them, and the modules whose import took most.
Writes results/start_*.json.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import json
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
HERE = Path(__file__).resolve().parent
WITH_SOURCES = {
    "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(HERE.parents[1] / "src")]).strip(os.pathsep)
}
SHOWN = 40
"""Functions of a profile."""


class Phase:
    """Seconds of a part of the start, and its profile on wish."""

    def __init__(self, record: dict[str, Any], name: str, profiled: bool) -> None:
        self.record, self.name = record, name
        self.profile = cProfile.Profile() if profiled else None

    def __enter__(self) -> None:
        self.began = time.perf_counter()
        if self.profile:
            self.profile.enable()

    def __exit__(self, *_: object) -> None:
        if self.profile:
            self.profile.disable()
            stats = pstats.Stats(self.profile).stats  # type: ignore[attr-defined]  # what the module writes to files
            most = sorted(stats.items(), key=lambda item: -item[1][3])[:SHOWN]
            self.record["functions"][self.name] = [
                {"function": f"{Path(file).name}:{line} {name}", "calls": calls, "own": own, "seconds": seconds}
                for (file, line, name), (_, calls, own, seconds, _) in most
            ]
        self.record["seconds"][self.name] = time.perf_counter() - self.began


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """One start, in this process: imports, the rig with its weights, the first step, the second."""
    record: dict[str, Any] = {"seconds": {}, "functions": {}}
    with Phase(record, "import", arguments.profile):
        from tenfold.collector import collect_rarely

        collect_rarely()  # as the command line does
        import tenfold.cuts
        import tenfold.rig.model  # noqa: F401
    import protocol
    import torch
    from ours import build
    from rows import steps_of_rows

    from shapes import SHAPES, model_folder

    folder = model_folder(arguments.shape)
    vocabulary = SHAPES[arguments.shape]["vocab_size"]
    rows = steps_of_rows("fixed", arguments.rows, arguments.length, vocabulary, 2, 0)
    with Phase(record, "load", arguments.profile):
        system = build(arguments, folder)
        protocol.synchronise(arguments.device)
    record["after_load"] = memory(arguments.device)
    for number, name in enumerate(("first step", "second step")):
        with Phase(record, name, arguments.profile):
            protocol.run_step(system, system.prepare(rows[number]))
            protocol.synchronise(arguments.device)
        record["seconds"][f"process to the end of the {name}"] = time.perf_counter() - BEGAN
    found = torch._dynamo.utils.counters
    record["compiled"] = {name: dict(found[name]) for name in ("stats", "aot_autograd", "inductor")}
    modules = [sys.modules[name].__file__ or "" for name in ("torch", "transformers", "sympy", "tenfold")]
    record["bytecode"] = all(Path(cache_from_source(file)).exists() for file in modules)
    return record | {"environment": protocol.environment(arguments.device)}


def memory(device: str) -> dict[str, int]:
    """Bytes held at most until now: by the process, and on the GPU by torch; and what torch holds there now."""
    status = Path("/proc/self/status").read_text().splitlines()
    found = {"host_peak_bytes": next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))}
    if device != "cpu":
        import torch

        found |= {
            "device_peak_bytes": torch.cuda.max_memory_allocated(),
            "device_bytes": torch.cuda.memory_allocated(),
        }
    return found


def imports() -> list[dict[str, Any]]:
    """The modules whose own import took most, of what the package's models need; by Python's own clock."""
    words = [sys.executable, "-X", "importtime", "-c", "import tenfold.cuts, tenfold.rig.model"]
    lines = subprocess.run(
        words, env=os.environ | WITH_SOURCES, stderr=subprocess.PIPE, text=True, check=True
    ).stderr.splitlines()
    rows = [line.removeprefix("import time:").split("|") for line in lines if line.startswith("import time:")][1:]
    found = [{"module": n.strip(), "own": int(own) / 1e6, "seconds": int(all_) / 1e6} for own, all_, n in rows]
    return [{"modules": len(found)}, *sorted(found, key=lambda row: -row["own"])[:SHOWN]]


def arguments_of() -> argparse.Namespace:
    """The command line; `cuts`, `optimizer` and `bf16_weights` are what ours.py's builder also reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-8b")
    parser.add_argument("--settings", nargs="+", default=["bf16", "fp8-kept"])
    parser.add_argument("--micro-tokens", type=int, default=16384)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    parser.add_argument("--one", help="one start of this setting here; its record to standard output")
    parser.set_defaults(cuts="", optimizer="adamw", bf16_weights=False)
    return parser.parse_args()


def main() -> None:
    """Two starts of every setting, each in a process; one file."""
    arguments = arguments_of()
    if arguments.one:
        arguments.setting = arguments.one
        print(json.dumps(start(arguments)), flush=True)
        os._exit(0)  # without waiting for compilers' threads
    make = ["shapes.py", "--shape", arguments.shape, "--device", arguments.device]
    subprocess.run([sys.executable, *make], cwd=HERE, check=True)
    date = datetime.date.today().isoformat()
    body = {
        "benchmark": "start",
        "date": date,
        "settings": {k: str(v) for k, v in vars(arguments).items() if k != "out"},
    }
    if arguments.profile:
        body["imports"] = imports()
    path = arguments.out / f"start_{arguments.shape}_{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for setting in arguments.settings:
        caches = Path(tempfile.mkdtemp())
        environment = os.environ | {
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            **WITH_SOURCES,
        }
        for caches_of in ("empty", "filled"):
            words = [sys.executable, __file__, *sys.argv[1:], "--one", setting]
            began = time.perf_counter()
            ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
            whole = time.perf_counter() - began
            row = json.loads(ended.stdout.splitlines()[-1]) if ended.returncode == 0 else {"error": ended.returncode}
            results.append({"setting": setting, "caches": caches_of, "process_seconds": whole, **row})
            path.write_text(json.dumps({**body, "rows": results}, indent=1) + "\n")  # a call that is cut short keeps it
            print(setting, caches_of, json.dumps(row.get("seconds", row)), flush=True)
        shutil.rmtree(caches)
    print(path)


if __name__ == "__main__":
    main()
