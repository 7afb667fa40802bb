"""The floor of a LoRA step: its wide products and its attention alone, back to back for seconds, on random numbers.

    python bench/gpu/limits.py --shape llama-8b --rows 8 --length 2048 [--seconds 6]

What a step cannot do without: of every layer the products of its frozen weights forward and for the gradient of their
inputs, merged as the engine merges them, attention both ways, and the head both ways. Nothing else: no norm, no
activation, no rounding, no adapter, no optimizer. In seconds of sustained work, because a GPU that multiplies for long
lowers its clock to keep to its power. Writes results/limits_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from protocol import Clocks, environment

from shapes import SHAPES

LOSS_ROWS = 2048
"""Of a chunk of the head, as the engine's default."""


def products(config: dict[str, Any], tokens: int, kind: str) -> list[Callable[[], Any]]:
    """The wide products of one layer, forward and backward."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    attended, shared = config["num_attention_heads"] * heads, 2 * config["num_key_value_heads"] * heads
    layers = ((attended + shared, width), (width, attended), (2 * inner, width), (width, inner))
    calls: list[Callable[[], Any]] = []
    for out, into in layers:
        x, dy, weight = _random(tokens, into), _random(tokens, out), _random(out, into)
        if kind == "bf16":
            calls += [lambda x=x, w=weight: x @ w.t(), lambda dy=dy, w=weight: dy @ w]
        else:
            calls += [_scaled(x, weight), _scaled(dy, weight.t().contiguous())]
    return calls


def _random(*size: int) -> torch.Tensor:
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def _scaled(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], Any]:
    """x [T, K] times weight [N, K] transposed, both in fp8 with a scale per row, as rig/operands.py does."""
    from tenfold.rig.operands import fp8_rows, scaled_product

    narrow, scale = fp8_rows(x)
    codes, scales = fp8_rows(weight)
    return lambda: scaled_product(narrow, scale, codes, scales.flatten())


def attention(config: dict[str, Any], rows: int, length: int) -> list[Callable[[], Any]]:
    """Causal attention of one layer, forward and backward, by the kernel that the engine picks for full rows."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, shared, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    q, k, v = (_random(rows, count, length, size).requires_grad_() for count in (heads, shared, shared))
    grad = _random(rows, heads, length, size)

    def both() -> None:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        torch.autograd.grad(out, (q, k, v), grad)

    return [both]


def head(config: dict[str, Any]) -> list[Callable[[], Any]]:
    """The head's products of one chunk of loss rows."""
    x, weight = _random(LOSS_ROWS, config["hidden_size"]), _random(config["vocab_size"], config["hidden_size"])
    dy = _random(LOSS_ROWS, config["vocab_size"])
    return [lambda: x @ weight.t(), lambda: dy @ weight]


def sustained(calls: list[Callable[[], Any]], seconds: float) -> dict[str, Any]:
    """Seconds of one round of all calls, over at least so many seconds, and the clocks meanwhile."""
    for _ in range(3):
        _round(calls)
    torch.cuda.synchronize()
    started, rounds = time.perf_counter(), 0
    with Clocks(True) as clocks:
        while time.perf_counter() - started < seconds:
            for _ in range(5):
                _round(calls)
            torch.cuda.synchronize()
            rounds += 5
    return {"seconds": (time.perf_counter() - started) / rounds, "clocks": clocks.summary}


def _round(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    arguments = parser.parse_args()
    config, tokens = SHAPES[arguments.shape], arguments.rows * arguments.length
    layers, chunks = config["num_hidden_layers"], tokens / LOSS_ROWS
    parts: dict[str, Any] = {"attention": sustained(attention(config, arguments.rows, arguments.length), 2.0)}
    parts["head"] = sustained(head(config), 2.0)
    for kind in ("bf16", "fp8"):
        parts[kind] = sustained(products(config, tokens, kind), arguments.seconds)
    outside = layers * parts["attention"]["seconds"] + chunks * parts["head"]["seconds"]
    floors = {kind: layers * parts[kind]["seconds"] + outside for kind in ("bf16", "fp8")}
    date = datetime.date.today().isoformat()
    body = {
        "benchmark": "gpu-limits",
        "date": date,
        "environment": environment("cuda"),
        "shape": arguments.shape,
        "rows": arguments.rows,
        "length": arguments.length,
        "layer_and_chunk_parts": parts,
        "floor_step_seconds": floors,
        "most_tokens_per_second": {kind: tokens / seconds for kind, seconds in floors.items()},
    }
    card = torch.cuda.get_device_name().split()[-1].lower()
    path = arguments.out / f"limits_{arguments.shape}_{arguments.rows}x{arguments.length}_{card}_{date}.json"
    path.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps({key: body[key] for key in ("floor_step_seconds", "most_tokens_per_second")}), path)


if __name__ == "__main__":
    main()
