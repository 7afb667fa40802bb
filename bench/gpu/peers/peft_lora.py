"""PEFT on a transformers model, with or without Liger's kernels, in a plain loop.

    python bench/gpu/peers/peft_lora.py --model DIR --setting as-shipped|best [--liger] --out FILE.json

as-shipped: gradient checkpointing, adapters in float32, as the examples have it. best: no checkpointing, adapters in
bf16. Short rows are padded, in micro-batches of like length at `best` and in their order as shipped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from program import ALPHA, LEARNING_RATE, LINEARS, RANK, arguments_of, go_offline, run


def build(arguments: argparse.Namespace, folder: Path) -> Any:
    """The model by transformers, adapters by PEFT."""
    import torch
    from peers.plain import checkpoint, liger, load, plain_backward, plain_prepare
    from peft import LoraConfig, get_peft_model
    from protocol import System

    best = arguments.setting == "best"
    base = load(folder, arguments.device)
    if arguments.liger:
        liger(base)
    if not best:
        checkpoint(base)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=list(LINEARS))
    model = get_peft_model(base, config, autocast_adapter_dtype=not best)
    model.train()
    learns = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return System(
        name="PEFT + Liger" if arguments.liger else "PEFT",
        parameters=learns,
        optimizer=torch.optim.AdamW(learns.values(), lr=LEARNING_RATE, fused=True),
        prepare=plain_prepare(arguments, sort=best),
        backward=plain_backward(model, arguments.device, autocast=not best),
        facts=[
            f"plain loop, {'no checkpointing' if best else 'checkpointing'}, sdpa, fused AdamW",
            f"adapters {sorted({str(weight.dtype) for weight in learns.values()})}",
            f"loss: {'Liger fused linear cross-entropy' if arguments.liger else 'of transformers, all logits'}",
            *([f"padded micro-batches of {arguments.micro_rows} rows"] if arguments.workload == "packed" else []),
        ],
    )


def main() -> None:
    """Measure one row."""
    go_offline()
    arguments = arguments_of(
        __doc__,
        liger={"action": "store_true", "help": "Liger's kernels and loss"},
        micro_rows={"type": int, "default": 32, "help": "rows computed at once when they are short"},
    )
    started = time.perf_counter()
    import transformers  # noqa: F401

    run(arguments, build, time.perf_counter() - started)


if __name__ == "__main__":
    main()
