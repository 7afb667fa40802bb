"""What the peers without a loop of their own share: padded micro-batches and a loss divided by the step's targets."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rows import Row, padded, targets
from transformers import AutoModelForCausalLM


def load(folder: Path, device: str) -> Any:
    """The model by transformers, bf16, straight to the device."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa", device_map={"": device}
    )
    model.config.use_cache = False
    return model


def plain_prepare(arguments: argparse.Namespace, sort: bool) -> Callable[[Sequence[Row]], list[dict[str, Any]]]:
    """Padded micro-batches: one for fixed rows, `micro_rows` rows each for short ones, by length if `sort`."""

    def prepare(rows: Sequence[Row]) -> list[dict[str, Any]]:
        if arguments.workload == "fixed":
            return [padded(rows, arguments.device) | {"num_items_in_batch": _count(rows, arguments.device)}]
        order = sorted(rows, key=lambda row: -len(row.input_ids)) if sort else list(rows)
        size = arguments.micro_rows
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        count = _count(rows, arguments.device)
        return [padded(part, arguments.device) | {"num_items_in_batch": count} for part in parts]

    return prepare


def _count(rows: Sequence[Row], device: str) -> torch.Tensor:
    return torch.tensor(targets(rows), device=device)


def plain_backward(model: Any, device: str, autocast: bool) -> Callable[[list[dict[str, Any]]], torch.Tensor]:
    """Forward and backward of each micro-batch by the model's own loss."""

    def backward(batches: list[dict[str, Any]]) -> torch.Tensor:
        total = torch.zeros((), device=device)
        for batch in batches:
            with torch.autocast("cuda", torch.bfloat16) if autocast and device != "cpu" else nullcontext():
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            total += loss.detach().float()
        return total

    return backward


def checkpoint(model: Any) -> None:
    """transformers' gradient checkpointing, with inputs that carry gradients through frozen embeddings."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()


def liger(model: Any) -> None:
    """All of Liger's kernels for this model, its fused linear cross-entropy included."""
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model)
