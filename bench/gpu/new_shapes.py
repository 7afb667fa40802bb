"""What attention takes for a shape that it meets for the first time, forward and backward, and for the second time.

    python bench/gpu/new_shapes.py

With torch's own choice of kernels, which on Hopper is cuDNN's, and with those that plan nothing
(tenfold.rig.attention.unplanned_attention). Padded rows: bfloat16, under a mask. Writes results/new_shapes_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ATTENTIONS = ((16, 64, 32, 100, 200), (16, 128, 8, 500, 1400))
"""Heads, their width, rows, and between which lengths."""

LENGTHS, AGAIN = 16, 4


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """A result and its milliseconds, the device's among them."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    found = act()
    torch.cuda.synchronize()
    return found, 1e3 * (time.perf_counter() - began)


def attend(heads: int, width: int, rows: int, lengths: list[int], planned: bool) -> list[dict[str, float]]:
    """Each length once, in this order."""
    import torch
    import torch.nn.functional as F

    from tenfold.rig.attention import unplanned_attention

    found = []
    for length in lengths:
        shape = (rows, heads, length, width)
        q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        mask = torch.ones(rows, 1, length, length, dtype=torch.bool, device="cuda")
        mask[..., length - 5 :] = False
        with nullcontext() if planned else unplanned_attention():
            out, forward = timed(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask))  # noqa: B023
            gradient = torch.randn_like(out)
            _, backward = timed(lambda: out.backward(gradient))  # noqa: B023
        found.append({"length": length, "forward_ms": forward, "backward_ms": backward})
    return found


def main() -> None:
    """Every attention both ways; one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    import protocol

    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for heads, width, batch, shortest, longest in ATTENTIONS:
        lengths = draw.sample(range(shortest, longest), LENGTHS)
        for planned in (True, False):
            times = attend(heads, width, batch, [*lengths, *lengths[:AGAIN]], planned)
            kernels = "torch's choice" if planned else "unplanned"
            rows.append({"heads": heads, "width": width, "rows": batch, "kernels": kernels, "times": times})
            print(json.dumps(rows[-1]), flush=True)
    date = datetime.date.today().isoformat()
    body = {"benchmark": "new-shapes", "date": date, "environment": protocol.environment("cuda"), "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"new_shapes_{date}.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
