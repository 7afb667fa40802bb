"""Rows side by side on one GPU, each in a process of its own, alternating; every result goes into one JSON file.

    python bench/gpu/run.py --shape llama-8b --workload fixed --systems ours-bf16 unsloth unsloth-best --repeats 2

`ours-NAME` takes its cuts from cuts.json, `ours-NAME@8192` in micro-batches of 8,192 tokens. A row that fails, runs out
of time or is not reached is in the file with its reason.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gate import gate

from shapes import SHAPES, model_folder

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from measure import machine  # noqa: E402

SYSTEMS: dict[str, list[str]] = {
    "unsloth": ["peers/unsloth_lora.py", "--setting", "as-shipped"],
    "unsloth-best": ["peers/unsloth_lora.py", "--setting", "best"],
    "unsloth-graphs": ["peers/unsloth_lora.py", "--setting", "best", "--cuda-graphs"],
    "unsloth-model": ["peers/unsloth_lora.py", "--setting", "best", "--loader", "model"],
    "unsloth-qlora": ["peers/unsloth_lora.py", "--setting", "as-shipped", "--qlora"],
    "unsloth-qlora-best": ["peers/unsloth_lora.py", "--setting", "best", "--qlora"],
    "peft": ["peers/peft_lora.py", "--setting", "as-shipped"],
    "peft-liger": ["peers/peft_lora.py", "--setting", "as-shipped", "--liger"],
    "peft-liger-best": ["peers/peft_lora.py", "--setting", "best", "--liger"],
    "trl": ["peers/trl_lora.py", "--setting", "as-shipped"],
    "trl-best": ["peers/trl_lora.py", "--setting", "best"],
    "trl-liger": ["peers/trl_lora.py", "--setting", "as-shipped", "--liger"],
    "trl-liger-best": ["peers/trl_lora.py", "--setting", "best", "--liger"],
    "full": ["peers/full.py", "--setting", "as-shipped", "--no-liger"],
    "full-liger": ["peers/full.py", "--setting", "as-shipped"],
    "full-liger-best": ["peers/full.py", "--setting", "best"],
}
GRACE_SECONDS = 15
"""Between the budget that a row knows of and its end by force."""

LEAST_SECONDS = 30
"""A row is not begun with less time left."""


def command(system: str) -> list[str]:
    """The program and the arguments of a system."""
    if not system.startswith("ours-"):
        return SYSTEMS[system]
    setting, _, tokens = system.removeprefix("ours-").partition("@")
    size = ["--micro-tokens", tokens] if tokens else []
    return ["ours.py", "--setting", setting, *size, *_optimizer(setting)]


def _optimizer(setting: str) -> list[str]:
    """The peers' full rows keep weights, gradients and moments in bf16; beside them `full` does, and `full-split` has
    weights of 24 bits and moments of 8."""
    if setting.startswith("full-split"):
        return ["--optimizer", "adamw_8bit_split"]
    return ["--bf16-weights"] if setting.startswith("full") else []


def call(words: list[str], seconds: float, log: Path) -> str | None:
    """Run one of our programs; None, or why it did not end well. Its output goes to `log`."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(HERE.parents[1] / "src")]).strip(":"),
        "PYTHONUNBUFFERED": "1",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/tenfold-bench-caches/inductor",
        "TRITON_CACHE_DIR": "/tmp/tenfold-bench-caches/triton",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, str(HERE / words[0]), *words[1:]],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {seconds:.0f} s"
    return None if code == 0 else f"exit status {code}"


class Session:
    """One call of this program: its clock, its folder, its file."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.began = time.perf_counter()
        self.work = Path("/tmp/tenfold-bench") / f"run-{os.getpid()}"
        self.work.mkdir(parents=True, exist_ok=True)
        tag = f"_{arguments.tag}" if arguments.tag else ""
        date = datetime.date.today().isoformat()
        self.path = arguments.out / f"rows_{arguments.shape}_{arguments.workload}{tag}_{date}.json"
        self.body: dict[str, Any] = {
            "benchmark": "gpu-rows",
            "date": date,
            "machine": machine(),
            "shape": arguments.shape,
            "workload": arguments.workload,
            "settings": {name: str(value) for name, value in vars(arguments).items()},
            "preparation": [],
            "rows": [],
        }

    @property
    def left(self) -> float:
        """Seconds of the total budget that are left."""
        return self.arguments.total_seconds - (time.perf_counter() - self.began)

    def save(self) -> None:
        """Write what there is: a call that is cut short keeps its rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.body, indent=1) + "\n")

    def prepare(self, name: str, words: list[str]) -> bool:
        """One preparation, timed and recorded; True if it worked."""
        log, started = self.work / f"{name}.log", time.perf_counter()
        fault = call([*words, "--device", self.arguments.device], self.left, log)
        seconds = round(time.perf_counter() - started, 1)
        self.body["preparation"].append({"name": name, "seconds": seconds, "error": fault and _tail(log, fault)})
        print(f"{name}: {seconds} s {fault or ''}", flush=True)
        if fault:
            print(_tail(log, fault), flush=True)
        self.save()
        return fault is None


def _tail(log: Path, fault: str) -> str:
    return f"{fault}: {log.read_text(errors='replace')[-1500:]}"


def prepare(session: Session) -> tuple[Path, float | None, Path | None]:
    """The model's folder, the float32 loss of the first step, and the folder of the reference gradients."""
    arguments = session.arguments
    folder = model_folder(arguments.shape)
    if not session.prepare("model", ["shapes.py", "--shape", arguments.shape, "--folder", str(folder)]):
        raise SystemExit("the model could not be written")
    kept = session.work.parent / f"reference-{arguments.shape}"  # for the calls to come on this machine
    loss, gradients = None, kept / "gradients"
    if not arguments.no_reference:
        out = kept / f"loss-{arguments.workload}-{arguments.rows}x{arguments.length}.json"
        words = ["reference.py", "loss", "--model", str(folder), "--out", str(out), *_sizes(arguments)]
        if out.exists() or session.prepare("reference loss", words):
            loss = json.loads(out.read_text())["loss"]
            session.body["reference_loss"] = loss
    if not arguments.no_check:
        words = ["reference.py", "gradients", "--shape", arguments.shape, "--out", str(gradients)]
        if (gradients / "gradients.json").exists() or session.prepare("reference gradients", words):
            return folder, loss, gradients
    return folder, loss, None


def _sizes(arguments: argparse.Namespace) -> list[str]:
    sizes = {"workload": arguments.workload, "rows": arguments.rows, "length": arguments.length}
    return [word for name, value in sizes.items() for word in (f"--{name}", str(value))]


def run_row(
    session: Session, system: str, repeat: int, folder: Path, loss: float | None, check: Path | None
) -> dict[str, Any]:
    """One row in its own process, judged."""
    arguments = session.arguments
    if session.left < LEAST_SECONDS:
        return {"error": f"not run: {session.left:.0f} s of the total budget left"}
    seconds = min(arguments.row_seconds, session.left - GRACE_SECONDS)
    out, log = session.work / f"{system}-{repeat}.json", session.work / f"{system}-{repeat}.log"
    words = [
        *command(system), "--model", str(folder), "--shape", arguments.shape, "--name", system,
        "--timed-seconds", str(arguments.timed_seconds), "--budget-seconds", str(seconds),
        "--device", arguments.device, "--out", str(out), *_sizes(arguments),
        *(["--check", str(check)] if check and repeat == 0 and "full" not in system else []),
    ]  # fmt: skip
    fault = call(words, seconds + GRACE_SECONDS, log)
    row: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if fault and "error" not in row:
        row["error"] = fault
    if "error" in row:
        row["log_tail"] = log.read_text(errors="replace")[-3000:]
        print(row["log_tail"][-800:], flush=True)
    if loss is not None and row.get("losses"):
        cosine = row.get("check", {}).get("least_cosine")
        row["gate"] = gate(row["losses"][0], loss, row["precision"], cosine, row["gradients_step_2"]["without"])
    return row


def shown(row: dict[str, Any]) -> str:
    """A row in one line."""
    if "tokens_per_second" not in row:
        return f"FAILED {row.get('error', '')[:200]}"
    gib = row.get("peak_allocated_bytes", 0) / 2**30
    parts = [
        f"{row['tokens_per_second']:,.0f} tok/s (median step {row['median_tokens_per_second']:,.0f})",
        f"{gib:.1f} GiB, reserved {row.get('peak_reserved_bytes', 0) / 2**30:.1f}",
        f"import {row['import_seconds']:.0f} load {row['load_seconds']:.0f} first {row['first_step_seconds']:.1f} s",
        f"{row['warm_steps']} warm, {row['timed_steps']} timed, settled {row['settled']}",
        f"loss {row['losses'][0]:.4f} {row['losses'][-1]:.4f}",
        f"grads {row['gradients_step_2']['min']:.1e} without {row['gradients_step_2']['without']}",
        f"gate {row.get('gate', {}).get('faults', 'none')} cosine {row.get('check', {}).get('least_cosine')}"
        f" {str(row.get('check', {}).get('error', ''))[:120]}",
    ]
    return "; ".join(parts)


def main() -> None:
    """Prepare, run all rows, keep everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--workload", choices=["fixed", "packed"], default="fixed")
    parser.add_argument("--systems", nargs="+", required=True, help=f"ours-NAME, {', '.join(SYSTEMS)}")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--timed-seconds", type=float, default=12.0)
    parser.add_argument("--row-seconds", type=float, default=90.0, help="one row's budget")
    parser.add_argument("--total-seconds", type=float, default=560.0, help="the budget of all of this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-reference", action="store_true", help="without the float32 loss: rows stay unjudged")
    parser.add_argument("--no-check", action="store_true", help="without the float32 gradients")
    parser.add_argument("--tag", default="", help="in the file's name, so that two runs of a day both stay")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    session = Session(arguments)
    folder, loss, gradients = prepare(session)
    for repeat in range(arguments.repeats):
        for system in arguments.systems:
            row = run_row(session, system, repeat, folder, loss, gradients)
            session.body["rows"].append({"system_name": system, "repeat": repeat, **row})
            session.save()
            print(f"{system} #{repeat}: {shown(row)}", flush=True)
    print(f"{session.path} after {time.perf_counter() - session.began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
