"""Comparing a model with itself before and after a change that must not alter it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Allowed ||a - b|| / ||a||: some hundred units in the last place, far under what a wrong mask or head gives."""


def outputs_differ(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> str:
    """Why `found` is not `expected` up to rounding, as a phrase; empty if it is."""
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            return f"shape {tuple(b.shape)} instead of {tuple(a.shape)}"
        error = float((a.float() - b.float()).norm() / a.float().norm().clamp_min(1e-12))
        if not error <= TOLERANCE[a.dtype]:
            return f"relative difference {error:.1e}"
    return ""
