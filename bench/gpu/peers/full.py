"""transformers, every weight learns: checkpointing and Liger as people run it, in a plain loop.

    python bench/gpu/peers/full.py --model DIR --setting as-shipped|best --out FILE.json

Weights, gradients and AdamW's moments are bf16. best: no checkpointing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from program import arguments_of, go_offline, run

FULL_LEARNING_RATE = 1e-5


def build(arguments: argparse.Namespace, folder: Path) -> Any:
    """The model by transformers."""
    import torch
    from peers.plain import checkpoint, liger, load, plain_backward, plain_prepare
    from protocol import System

    best = arguments.setting == "best"
    model = load(folder, arguments.device)
    if not arguments.no_liger:
        liger(model)
    if not best:
        checkpoint(model)
    model.train()
    learns = dict(model.named_parameters())
    return System(
        name="transformers full" + ("" if arguments.no_liger else " + Liger"),
        parameters=learns,
        optimizer=torch.optim.AdamW(learns.values(), lr=FULL_LEARNING_RATE, fused=True),
        prepare=plain_prepare(arguments, sort=best),
        backward=plain_backward(model, arguments.device, autocast=False),
        facts=[f"plain loop, {'no checkpointing' if best else 'checkpointing'}, sdpa, fused AdamW, all in bf16"],
    )


def main() -> None:
    """Measure one row."""
    go_offline()
    arguments = arguments_of(__doc__, no_liger={"action": "store_true"}, micro_rows={"type": int, "default": 32})
    started = time.perf_counter()
    import transformers  # noqa: F401

    run(arguments, build, time.perf_counter() - started)


if __name__ == "__main__":
    main()
