"""Which number format computes: bfloat16 where the hardware has matrix units for it, float32 elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA devices of compute capability 8.0 and above; float32 elsewhere, unless a plan says more."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Every weight of `model` in `dtype`. Buffers stay as they are: rotary frequencies rounded to bfloat16 would turn
    late positions by whole turns, and whoever loads the result has them in float32."""
    kept = [(module, *named) for module in model.modules() for named in module.named_buffers(recurse=False)]
    model.to(dtype)
    for module, name, buffer in kept:
        setattr(module, name, buffer)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products in `dtype` on `device`."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
