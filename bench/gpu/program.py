"""What the programs of all systems share: arguments, the order of events, and the file that they write."""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
"""As near to the start of the process as a module can get; this one imports nothing heavy at the top."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true",
    "UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_STABLE_DOWNLOADS": "1",
}  # fmt: skip
"""Nothing is fetched and nothing is reported."""

LEARNING_RATE = 2e-4
RANK, ALPHA = 16, 32
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHECK_SECONDS = 15
"""Without so much of the budget left, gradients are not compared."""

STEPS_OF_ROWS = {"fixed": 8, "packed": 48}
"""Different steps' rows before they come round again. Short rows differ from step to step, as in a real run: what was
compiled or recorded for one step's lengths must not be measured as if it served all."""


def go_offline() -> None:
    """Set before any library is imported."""
    os.environ.update(OFFLINE)


def arguments_of(description: str | None, **extra: dict[str, Any]) -> argparse.Namespace:
    """The common arguments; `extra` are further ones by name, as argparse takes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--shape", default="", help="the shape's name, for the record")
    parser.add_argument("--name", default="", help="the row's name, for the record")
    parser.add_argument("--setting", default="as-shipped")
    parser.add_argument("--workload", choices=["fixed", "packed"], default="fixed")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, at least")
    parser.add_argument("--timed-seconds", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget-seconds", type=float, default=150.0)
    parser.add_argument("--check", type=Path, help="folder of reference.py: compare adapter gradients after timing")
    parser.add_argument("--out", type=Path, required=True)
    for name, settings in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    return parser.parse_args()


def run(arguments: argparse.Namespace, build: Callable[[argparse.Namespace, Path], Any], imported: float) -> None:
    """Build the system, measure it, write the result; what fails is written too. Exit status 1 on failure.

    `build(arguments, model folder)` returns a protocol.System. `imported`: seconds that importing the library took.
    """
    import protocol

    record: dict[str, Any] = {
        "name": arguments.name or arguments.setting,
        "shape": arguments.shape,
        "setting": arguments.setting,
        "workload": arguments.workload,
        "rows": arguments.rows,
        "length": arguments.length,
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "import_seconds": imported,
    }
    budget = protocol.Budget(BEGAN, arguments.budget_seconds)
    try:
        record["environment"] = protocol.environment(arguments.device)
        _measure(arguments, build, budget, record)
    except BaseException as error:
        record["error"] = f"{type(error).__name__}: {error}"[:2000]
        record["traceback"] = traceback.format_exc()[-4000:]
        traceback.print_exc()
    record["process_seconds"] = time.perf_counter() - BEGAN
    write(arguments.out, record)
    shown = ("name", "error", "tokens_per_second", "peak_allocated_bytes", "load_seconds", "first_step_seconds")
    print(json.dumps({name: record[name] for name in shown if name in record}), flush=True)
    os._exit(1 if "error" in record else 0)  # some libraries' threads and exit hooks take long or never end


def _measure(
    arguments: argparse.Namespace,
    build: Callable[[argparse.Namespace, Path], Any],
    budget: Any,
    record: dict[str, Any],
) -> None:
    """Build, time, check, adding to the record what is known so far."""
    import protocol
    import torch
    from rows import steps_of_rows, tokens

    started = time.perf_counter()
    system = build(arguments, arguments.model)
    protocol.synchronise(arguments.device)
    record |= {"system": system.name, "precision": system.precision, "facts": system.facts}
    record["load_seconds"] = time.perf_counter() - started
    record["trainable_parameters"] = sum(weight.numel() for weight in system.parameters.values())
    if arguments.device != "cpu":
        record["loaded_bytes"] = torch.cuda.memory_allocated()
    vocabulary = json.loads((arguments.model / "config.json").read_text())["vocab_size"]
    steps = steps_of_rows(
        arguments.workload,
        arguments.rows,
        arguments.length,
        vocabulary,
        STEPS_OF_ROWS[arguments.workload],
        arguments.seed,
    )
    record["rows_per_step"] = [len(rows) for rows in steps]
    record["tokens_per_step"] = tokens(steps[0])
    lengths = [len(row.input_ids) for rows in steps for row in rows]
    record["attended_tokens"] = sum(length**2 for length in lengths) / sum(lengths)
    timing = protocol.Timing(arguments.timed_seconds, arguments.steps)
    record |= protocol.measure(system, steps, arguments.device, budget, timing)
    write(arguments.out, record)
    if arguments.check and budget.left > CHECK_SECONDS:
        del system
        gc.collect()
        if arguments.device != "cpu":
            torch.cuda.empty_cache()
        record["check"] = _check(arguments, build)


def _check(arguments: argparse.Namespace, build: Callable[[argparse.Namespace, Path], Any]) -> dict[str, Any]:
    """Adapter gradients on the reference's small model; a failure here is recorded and spoils nothing."""
    from reference import compare_gradients

    try:
        return compare_gradients(lambda folder: build(arguments, folder), arguments.check, arguments.device)
    except BaseException as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


def write(path: Path, record: dict[str, Any]) -> None:
    """One JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1))
