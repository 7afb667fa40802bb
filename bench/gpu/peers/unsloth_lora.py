"""Unsloth: its own loader, adapters, kernels, checkpointing and loss, in a plain loop.

    python bench/gpu/peers/unsloth_lora.py --model DIR --setting as-shipped|best [--qlora] --out FILE.json

as-shipped: what its notebooks do, `use_gradient_checkpointing="unsloth"` and 8-bit AdamW. best: no checkpointing, fused
AdamW, and the norms keep their outputs. Its trainer adds nothing to the speed: it calls the same model under the same
autocast. Packed rows go through its padding-free path: one line with `packed_seq_lengths`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from program import ALPHA, LEARNING_RATE, LINEARS, RANK, arguments_of, go_offline, run


def build(arguments: argparse.Namespace, folder: Path) -> Any:
    """The model by Unsloth's own calls."""
    import torch
    from protocol import System
    from rows import Row, end_to_end, padded, targets
    from unsloth import FastLanguageModel, FastModel

    loader = FastModel if arguments.loader == "model" else FastLanguageModel
    best = arguments.setting == "best"
    model, _ = loader.from_pretrained(
        model_name=str(folder),
        max_seq_length=arguments.length,
        dtype=torch.bfloat16,
        load_in_4bit=arguments.qlora,
        use_gradient_checkpointing=False if best else "unsloth",
    )
    model = loader.get_peft_model(
        model,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0,
        bias="none",
        target_modules=list(LINEARS),
        use_gradient_checkpointing=False if best else "unsloth",
        random_state=3407,
    )
    loader.for_training(model)
    learns = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer, fact = _optimizer(learns, fused=best or arguments.device == "cpu")
    packed = arguments.workload == "packed"

    def prepare(rows: Sequence[Row]) -> dict[str, Any]:
        batch = (end_to_end if packed else padded)(rows, arguments.device)
        return batch | {"num_items_in_batch": torch.tensor(targets(rows), device=arguments.device)}

    def backward(batch: dict[str, Any]) -> torch.Tensor:
        kind = "cpu" if arguments.device == "cpu" else "cuda"
        with torch.autocast(kind, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        return loss.detach()

    return System(
        name="Unsloth QLoRA" if arguments.qlora else "Unsloth",
        parameters=learns,
        optimizer=optimizer,
        prepare=prepare,
        backward=backward,
        precision="nf4" if arguments.qlora else "bf16",
        facts=[
            f"{loader.__name__}, {'no checkpointing' if best else 'its checkpointing'}, {fact}",
            "plain loop under bf16 autocast; its fused loss",
            f"adapters {sorted({str(weight.dtype) for weight in learns.values()})}",
            _attention(),
            *(["packed_seq_lengths: all rows of a step in one line"] if packed else []),
        ],
    )


def _optimizer(learns: dict[str, Any], fused: bool) -> tuple[Any, str]:
    import torch

    if not fused:
        try:
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(learns.values(), lr=LEARNING_RATE), "8-bit AdamW"
        except Exception as error:
            return torch.optim.AdamW(learns.values(), lr=LEARNING_RATE, fused=True), f"fused AdamW ({error})"
    return torch.optim.AdamW(learns.values(), lr=LEARNING_RATE, fused=True), "fused AdamW"


def _attention() -> str:
    """Which attention Unsloth found."""
    found = getattr(sys.modules.get("unsloth.models._utils"), "xformers_version", None)
    return f"xformers {found}" if found else "no xformers: torch's attention"


def main() -> None:
    """Measure one row."""
    go_offline()
    arguments = arguments_of(
        __doc__,
        qlora={"action": "store_true", "help": "nf4 base"},
        loader={"choices": ["language", "model"], "default": "language"},
        xformers={
            "choices": ["yes", "no", "auto"],
            "default": "auto",
            "help": "auto: for short rows, which need it to be fast; torch's own attention is faster for full ones",
        },
        cuda_graphs={"action": "store_true", "help": "Unsloth's opt-in graphs of each block"},
    )
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", "/tmp/unsloth_compiled_cache")
    if arguments.setting == "best":
        os.environ["UNSLOTH_RMSNORM_SAVE_OUTPUT"] = "1"
    if arguments.cuda_graphs:
        os.environ["UNSLOTH_BLOCK_CUDAGRAPHS"] = "1"
    if arguments.xformers == "no" or (arguments.xformers == "auto" and arguments.workload == "fixed"):
        sys.modules["xformers"] = None  # type: ignore[assignment]  # as if it were not installed
    started = time.perf_counter()
    import unsloth  # noqa: F401

    run(arguments, build, time.perf_counter() - started)


if __name__ == "__main__":
    main()
