"""A few updates of split weights, whoever computes them."""

from __future__ import annotations

from typing import Any

import torch

from tenfold.run.adam8bit import Adam8bit
from tenfold.run.split_master import join

SIZES: tuple[Any, ...] = ((64, 256), (100, 512), (48, 1024), 33)
"""The last one is too small to be split."""


def updated_masters(compiled: bool, device: str = "cpu", rate: float = 1e-3) -> list[torch.Tensor]:
    """The masters of some weights after three updates, float32 on the CPU."""
    draw = torch.Generator().manual_seed(3)
    weights = [torch.nn.Parameter((0.02 * torch.randn(size, generator=draw)).to(device)) for size in SIZES]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": rate, "weight_decay": 0.1}]
    optimizer = Adam8bit(groups, (0.9, 0.999), 1e-8, compiled=compiled)
    for weight in weights[:-1]:
        optimizer.split(weight)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw).to(device, weight.dtype)
        optimizer.step()
    whole = weights[-1].detach()
    split = [join(weight.detach(), optimizer.state[weight]["low"]) for weight in weights[:-1]]
    return [master.cpu() for master in (*split, whole)]


def largest_difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Of the norms, relative."""
    pairs = zip(found, expected, strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)
