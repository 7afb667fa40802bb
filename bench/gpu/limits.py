"""The floor of a step: what no engine can do without, alone and back to back for seconds, on random numbers.

    python bench/gpu/limits.py --shape llama-8b --rows 8 --length 2048 [--train full] [--workload packed]

Three figures for each format of the products. Products and attention: of every block the wide products forward, for the
gradients of inputs and, in full fine-tuning, of weights, attention both ways, and the head. With passes: the bytes of
limit_passes.py as well, at the rate that plain copies reach here, and in full fine-tuning the update of all weights.
In one round: all of this as one step, so that what draws little power makes room for what draws much; the parts alone
run at the clock that each can hold. No adapters. In seconds of sustained work, because a GPU that multiplies for long
lowers its clock to keep to its power. Writes results/limits_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from limit_passes import UPDATE_BYTES, Copies, block_bytes, fused_update, loss_bytes
from limit_products import (
    Call,
    Widths,
    block_products,
    blocks_worth,
    full_attention,
    head_products,
    packed_attention,
)
from protocol import Clocks, environment, synchronise
from rows import Row, steps_of_rows, targets

from shapes import SHAPES, parameters

HEAD_ROWS = (2048, 8192)
"""Of a chunk of the head: the engine's default, and more at once. The faster one counts."""

ROWS_MULTIPLE = 64
"""Equal chunks of the loss rows of one round are rounded up to it: no product is slow for an odd number of rows."""

PACKED_STEPS = 4
"""Steps of short rows whose attention is timed."""

KINDS = {"lora": {"bf16": ("bf16", "bf16"), "fp8": ("fp8", "bf16"), "fp8, head too": ("fp8", "fp8")}}
KINDS["full"] = {"bf16": KINDS["lora"]["bf16"]}
"""Formats of the products of the blocks and of the head, by what learns. Only frozen weights are in fp8."""


@dataclass(frozen=True)
class Step:
    """What one step is made of."""

    config: dict[str, Any]
    train: str
    rows: Sequence[Sequence[Row]]
    """Of some steps, whose attention differs."""
    uniform: tuple[int, int] | None
    """Rows and their length, where they have one."""
    device: str

    @property
    def tokens(self) -> int:
        """Of one step."""
        return sum(len(row.input_ids) for row in self.rows[0])

    @property
    def loss_tokens(self) -> float:
        """Of one step, in the mean."""
        if self.uniform:
            return float(self.tokens)
        return sum(map(targets, self.rows)) / len(self.rows)

    @property
    def trained_parameters(self) -> int:
        """Weights that the update goes over; those of adapters are not counted."""
        return sum(parameters(self.config)) if self.train == "full" else 0

    def attention(self) -> list[list[Call]]:
        """Of one block, for each of the steps."""
        if self.uniform:
            return [full_attention(self.config, *self.uniform, self.device)]
        found = [packed_attention(self.config, [len(row.input_ids) for row in rows], self.device) for rows in self.rows]
        return found if self.device == "cpu" else [[recorded(calls)] for calls in found]


@dataclass(frozen=True)
class Recorded:
    """Calls as a CUDA graph, as the engine runs its passes: short kernels would wait for the host."""

    graph: torch.cuda.CUDAGraph
    calls: Sequence[Call]
    """They hold the tensors whose addresses the graph knows."""

    def __call__(self) -> None:
        self.graph.replay()


def recorded(calls: Sequence[Call]) -> Recorded:
    """The calls, recorded once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            _round(calls)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        _round(calls)
    return Recorded(graph, calls)


def sustained(calls: Sequence[Call], seconds: float, device: str) -> dict[str, Any]:
    """Seconds of one round of all calls, over at least so many seconds, and the clocks meanwhile."""
    _round(calls)
    synchronise(device)
    started = time.perf_counter()
    _round(calls)
    synchronise(device)
    together = max(1, round(0.1 / (time.perf_counter() - started)))  # rounds between two looks at the clock
    started, rounds = time.perf_counter(), 0
    with Clocks(device != "cpu") as clocks:
        while time.perf_counter() - started < seconds:
            for _ in range(together):
                _round(calls)
            synchronise(device)
            rounds += together
        taken = time.perf_counter() - started
    return {"seconds": taken / rounds, "clocks": clocks.summary}


def _round(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def measure(step: Step, seconds: float) -> dict[str, Any]:
    """All parts, what they add up to, and all of them as one step."""
    widths, layers, device = Widths.of(step.config), step.config["num_hidden_layers"], step.device
    kinds, attention, copies = KINDS[step.train], step.attention(), Copies(step.device)
    parts = {"attention": sustained([call for calls in attention for call in calls], seconds / 3, device)}
    parts["attention"]["seconds"] /= len(attention)
    parts["copy"] = sustained(copies.calls(copies.most_bytes), seconds / 3, device)
    for kind in sorted({block for block, _ in kinds.values()}):
        parts[kind] = sustained(block_products(widths, step.tokens, kind, step.train, device), seconds, device)
    heads = _heads(step, seconds / 3)
    worth = blocks_worth(widths, layers, step.loss_tokens / step.tokens, step.train)
    update_bytes = min(UPDATE_BYTES.values()) * step.trained_parameters
    bytes_per_second = copies.most_bytes / parts["copy"]["seconds"]
    found: dict[str, dict[str, Any]] = {}
    for name, (block, head) in kinds.items():
        best = min((one for one in heads if one["kind"] == head), key=lambda one: one["seconds"] / one["rows"])
        moved = layers * step.tokens * block_bytes(step.config, block) + step.loss_tokens * loss_bytes(step.config)
        products = worth * parts[block]["seconds"] + layers * parts["attention"]["seconds"]
        products += step.loss_tokens * best["seconds"] / best["rows"]
        block_calls = [
            *block_products(widths, step.tokens, block, step.train, device),
            *attention[0],
            *copies.calls(moved / layers),
        ]
        chunks = ceil(step.loss_tokens / best["rows"])
        chunk = -(-round(step.loss_tokens / chunks) // ROWS_MULTIPLE) * ROWS_MULTIPLE
        head_calls = head_products(widths, chunk, head, step.train, device)
        whole = [call for _ in range(layers) for call in block_calls] + copies.calls(update_bytes)
        whole += [call for _ in range(chunks) for call in head_calls]
        found[name] = {
            "moved_bytes": moved + update_bytes,
            "floor_step_seconds": products,
            "floor_step_seconds_with_passes": products + (moved + update_bytes) / bytes_per_second,
            "step_in_one_round": sustained(whole, seconds, device),
        }
        del block_calls, head_calls, whole
    return {
        "layer_and_chunk_parts": parts,
        "head": heads,
        "copied_bytes_per_second": bytes_per_second,
        "blocks_worth": worth,
        "loss_tokens": step.loss_tokens,
        "update": _update(step, seconds, bytes_per_second) if step.train == "full" else None,
        "kinds": found,
        **_most(step.tokens, found),
    }


def _most(tokens: int, found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Tokens per second of each kind, by each figure."""
    return {
        "most_tokens_per_second": {name: tokens / one["floor_step_seconds"] for name, one in found.items()},
        "most_tokens_per_second_with_passes": {
            name: tokens / one["floor_step_seconds_with_passes"] for name, one in found.items()
        },
        "most_tokens_per_second_in_one_round": {
            name: tokens / one["step_in_one_round"]["seconds"] for name, one in found.items()
        },
    }


def _heads(step: Step, seconds: float) -> list[dict[str, Any]]:
    """A chunk of the head in every format and size."""
    found: list[dict[str, Any]] = []
    for kind in sorted({head for _, head in KINDS[step.train].values()}):
        for rows in sorted({min(rows, step.tokens) for rows in HEAD_ROWS}):
            calls = head_products(Widths.of(step.config), rows, kind, step.train, step.device)
            found.append({"kind": kind, "rows": rows, **sustained(calls, seconds, step.device)})
    return found


def _update(step: Step, seconds: float, bytes_per_second: float) -> dict[str, Any]:
    """The update of all weights: by its bytes, and by torch's fused AdamW on those of one block; seconds."""
    found: dict[str, Any] = {
        f"{name}, by bytes": each * step.trained_parameters / bytes_per_second for name, each in UPDATE_BYTES.items()
    }
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        update, weights = fused_update(step.config, dtype, step.device)
        timed = sustained([update], seconds / 3, step.device)["seconds"]
        found[f"adamw in {name}, by torch"] = timed / weights * step.trained_parameters
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--workload", choices=["fixed", "packed"], default="fixed")
    parser.add_argument("--train", choices=list(KINDS), default="lora")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind of products; other parts a third")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    given = parser.parse_args()
    config, packed = SHAPES[given.shape], given.workload == "packed"
    steps = PACKED_STEPS if packed else 1
    rows = steps_of_rows(given.workload, given.rows, given.length, config["vocab_size"], steps)
    step = Step(config, given.train, rows, None if packed else (given.rows, given.length), given.device)
    date = datetime.date.today().isoformat()
    body = {
        "benchmark": "gpu-limits",
        "date": date,
        "environment": environment(given.device),
        "shape": given.shape,
        "workload": given.workload,
        "train": given.train,
        "rows": given.rows,
        "length": given.length,
        **measure(step, given.seconds),
    }
    card = "cpu" if given.device == "cpu" else torch.cuda.get_device_name().split()[-1].lower()
    name = "_".join([given.shape, *(["packed"] if packed else []), *(["full"] if given.train == "full" else [])])
    path = given.out / f"limits_{name}_{given.rows}x{given.length}_{card}_{date}.json"
    path.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps({key: value for key, value in body.items() if key.startswith("most_")}), path)


if __name__ == "__main__":
    main()
