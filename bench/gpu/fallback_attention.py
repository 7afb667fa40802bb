"""Attention over packed rows, forward and backward, by kernel: torch's of variable length, its kernels for rows of
like length side by side (what GPUs without the first, float32, and CPUs get), and compiled FlexAttention.

    python bench/gpu/fallback_attention.py

The middle of seven passes after the first, in ms; beside it the first, in seconds, which compiles or plans. Writes
results/fallback_attention_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parent)]

from measure import machine  # noqa: E402
from tenfold.rig.attention import unplanned_attention  # noqa: E402
from tenfold.rig.ragged import attend_ragged, ragged_rows  # noqa: E402
from tenfold.rig.segments import attend_segments, segment_rows  # noqa: E402

TOKENS, HEADS, KEY_HEADS, WIDTH = 16384, 32, 8, 128
"""Of Llama-3.1-8B, a micro-batch of 16,384 tokens."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def rows_of(kind: str, seed: int) -> list[int]:
    """Lengths that fill the tokens: all 2,048, or mixed as in GSM8K."""
    if kind == "2048":
        return [2048] * (TOKENS // 2048)
    drawn, generator = list[int](), random.Random(seed)
    while sum(drawn) < TOKENS:
        drawn.append(min(TOKENS - sum(drawn), max(32, int(generator.lognormvariate(5.1, 0.4)))))
    return drawn


def variable_length(lengths: list[int]) -> Attend:
    """torch's kernel for rows of different lengths."""
    rows = ragged_rows(lengths).to(torch.device("cuda"))
    return lambda q, k, v: attend_ragged(q, k, v, rows, causal=True, scaling=None, window=None)


def side_by_side(lengths: list[int]) -> Attend:
    """Rows of like length in one call each."""
    segments = segment_rows(lengths).to(torch.device("cuda"))

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with unplanned_attention():
            return attend_segments(q, k, v, segments, causal=True, scaling=None, window=None, dropout=0.0)

    return attend


COMPILED = torch.compile(flex_attention)


def flex(lengths: list[int]) -> Attend:
    """FlexAttention with a mask of blocks by document, made anew for each micro-batch as it has to be."""
    of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).cuda()

    def visible(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (of[q] == of[k]) & (q >= k)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mask = create_block_mask(visible, None, None, TOKENS, TOKENS, device="cuda")
        return COMPILED(q, k, v, block_mask=mask, enable_gqa=True).transpose(1, 2)  # type: ignore[union-attr]

    return attend


def timed(attend: Attend) -> tuple[float, list[float], torch.Tensor]:
    """Seconds of the first pass both ways, those of the passes after it, and the first one's result."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, TOKENS, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    seconds, first = [], torch.empty(0)
    for number in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        out = attend(query, key, value)
        out.backward(torch.ones_like(out))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if number == 0:
            first = out.detach()
    return seconds[0], seconds[1:], first


def main() -> None:
    """Every kernel on both kinds of rows; results held to the first kernel's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    date = datetime.date.today().isoformat()
    body = {"benchmark": "fallback_attention", "date": date, "machine": machine()}
    path = arguments.out / f"fallback_attention_{date}.json"
    results: list[dict[str, Any]] = []
    references: dict[str, torch.Tensor] = {}
    kernels = (("variable length", variable_length), ("side by side", side_by_side), ("flex", flex))
    for name, make in kernels:
        for kind in ("mixed", "2048"):
            lengths = rows_of(kind, 0)
            try:
                first, later, out = timed(make(lengths))
            except RuntimeError as error:
                results.append({"rows": kind, "kernel": name, "error": str(error)[:500]})
                print(results[-1], flush=True)
                continue
            reference = references.setdefault(kind, out)
            distance = float((out.float() - reference.float()).norm() / reference.float().norm())
            row = {"rows": kind, "count": len(lengths), "kernel": name, "first_seconds": first, "seconds": later}
            results.append({**row, "distance": distance})
            print(
                f"{kind} {name}: {1e3 * statistics.median(later):.2f} ms, first {first:.2f} s, {distance:.1e}",
                flush=True,
            )
            path.write_text(json.dumps({**body, "rows": results}, indent=1) + "\n")  # a call that is cut short keeps it
    print(path)


if __name__ == "__main__":
    main()
