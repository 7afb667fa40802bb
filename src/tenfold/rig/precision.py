"""Which number format computes: bfloat16 where the hardware has matrix units for it, float32 elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA devices of compute capability 8.0 and above; float32 elsewhere, unless a plan says more."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products in `dtype` on `device`."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
