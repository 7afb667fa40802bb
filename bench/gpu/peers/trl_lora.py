"""TRL's SFTTrainer with PEFT, with or without Liger: its `training_step` (its loss, its metrics), our timing.

    python bench/gpu/peers/trl_lora.py --model DIR --setting as-shipped|best [--liger] --out FILE.json

as-shipped: TRL's defaults (checkpointing, bf16 autocast, float32 adapters) but the base in bf16, as every other row.
best: no checkpointing. The optimizer is stepped here, fused AdamW; data loading, logging and clipping are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from program import ALPHA, LEARNING_RATE, LINEARS, RANK, arguments_of, go_offline, run


def build(arguments: argparse.Namespace, folder: Path) -> Any:
    """The trainer, around two rows of data that it never reads."""
    import torch
    from datasets import Dataset
    from peers.plain import load, plain_prepare
    from peft import LoraConfig
    from protocol import System
    from rows import Row
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    best = arguments.setting == "best"
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        gradient_checkpointing=not best,
        use_liger_kernel=arguments.liger,
        use_cpu=arguments.device == "cpu",
        bf16=arguments.device != "cpu",
        max_length=None,
        report_to=[],
        dataset_num_proc=None,
    )
    trainer = SFTTrainer(
        model=load(folder, arguments.device),
        args=config,
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_dict({"input_ids": [[4, 5, 6], [7, 8, 9]], "labels": [[4, 5, 6], [7, 8, 9]]}),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=list(LINEARS)),
    )
    model = trainer.model
    model.train()
    if arguments.liger:  # what Trainer does when training starts
        from transformers.integrations.liger import apply_liger_kernel

        apply_liger_kernel(model, config.liger_kernel_config)
    learns = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    plain = plain_prepare(arguments, sort=False)

    def prepare(rows: Sequence[Row]) -> list[dict[str, Any]]:
        batches = plain(rows)
        for batch in batches:
            batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        return batches

    def backward(batches: list[dict[str, Any]]) -> torch.Tensor:
        total = torch.zeros((), device=arguments.device)
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "num_items_in_batch"}
            total += trainer.training_step(model, inputs, batch["num_items_in_batch"]).float()
        return total

    return System(
        name="TRL + PEFT + Liger" if arguments.liger else "TRL + PEFT",
        parameters=learns,
        optimizer=torch.optim.AdamW(learns.values(), lr=LEARNING_RATE, fused=True),
        prepare=prepare,
        backward=backward,
        facts=[
            f"SFTTrainer.training_step, {'no checkpointing' if best else 'checkpointing'}, sdpa, fused AdamW",
            f"adapters {sorted({str(weight.dtype) for weight in learns.values()})}, its chunked loss and metrics",
            *([f"padded micro-batches of {arguments.micro_rows} rows"] if arguments.workload == "packed" else []),
        ],
    )


def main() -> None:
    """Measure one row."""
    go_offline()
    arguments = arguments_of(
        __doc__,
        liger={"action": "store_true", "help": "Liger's layer kernels; the loss stays TRL's"},
        micro_rows={"type": int, "default": 32, "help": "rows computed at once when they are short"},
    )
    started = time.perf_counter()
    import trl  # noqa: F401

    run(arguments, build, time.perf_counter() - started)


if __name__ == "__main__":
    main()
