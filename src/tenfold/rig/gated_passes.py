"""The passes over memory between the products of a gated MLP with adapters, each as one operation.

With gate and up [T, F] as the frozen weights give them, h = act(gate + lg) (up + lu), where lg = thin_g Bg^T and
lu = thin_u Bu^T are what the adapters add, r wide before and F wide after. Adding them where they are used keeps them
out of memory: it is F-wide passes that adapters cost, not their FLOPs. Here stands the reference, in plain torch; CUDA
devices run rig/gated_kernels.
"""

# pyright: reportUntypedFunctionDecorator=false
# torch's declarations of custom operations have no types.

from __future__ import annotations

from math import ceil
from typing import Literal

import torch

from tenfold.rig.operands import FP8_LARGEST

Activation = Literal["silu", "gelu_tanh"]

TILE = 128
"""So many columns share a partial maximum: a row's largest is known only once all of it is there."""


def activate(x: torch.Tensor, activation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """act(x) and act'(x) of float32 x: silu, or gelu by its tanh approximation (arXiv 1606.08415)."""
    if activation == "silu":
        share = torch.sigmoid(x)
        return x * share, share * (1 + x * (1 - share))
    inner = 0.7978845608028654 * (x + 0.044715 * x**3)  # sqrt(2 / pi)
    share = torch.sigmoid(2 * inner)
    slope = 2 * 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)
    return x * share, share * (1 + x * (1 - share) * slope)


@torch.library.custom_op("tenfold::gated_forward", mutates_args=())
def gated_forward(
    gate: torch.Tensor,
    up: torch.Tensor,
    thin: torch.Tensor,
    gate_b: torch.Tensor,
    up_b: torch.Tensor,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h [T, F] of gate and up [T, F], thin [T, 2 r] and the adapters' B, scaled, [F, r]; and the largest |h| of each
    row in each tile of columns, float32 [T, tiles]."""
    low_gate, low_up = _lows(thin, gate_b, up_b)
    act, _ = activate(gate.float() + low_gate, activation)
    h = (act * (up.float() + low_up)).to(gate.dtype)
    return h, _peaks(h.float())


@torch.library.custom_op("tenfold::gated_backward", mutates_args=())
def gated_backward(
    dh: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    thin: torch.Tensor,
    thin_dh: torch.Tensor,
    gate_b: torch.Tensor,
    up_b: torch.Tensor,
    down_a: torch.Tensor,
    scales: torch.Tensor | None,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of gate and up side by side [T, 2 F]; the largest of each row in each tile of columns of gate and
    up, float32 [T, tiles], after multiplication by `scales` [2 F]; and three products with them, float32 [3, r, F]:
    thin_dh^T h, thin_g^T dgate, thin_u^T dup.

    dh [T, F] is what the frozen down projection gives; thin_dh [T, r] times down_a [r, F] is its adapter's share.
    """
    low_gate, low_up = _lows(thin, gate_b, up_b)
    d = dh.float() + thin_dh.float() @ down_a.float()
    wide_up = up.float() + low_up
    act, slope = activate(gate.float() + low_gate, activation)
    rank, h = gate_b.shape[1], (act * wide_up).to(gate.dtype)
    d_gate, d_up = (d * wide_up * slope).to(gate.dtype), (d * act).to(gate.dtype)
    products = [thin_dh.T @ h, thin[:, :rank].T @ d_gate, thin[:, rank:].T @ d_up]
    both = torch.cat([d_gate, d_up], dim=1)
    scaled = both.float() if scales is None else both.float() * scales
    gate_peaks, up_peaks = (_peaks(half) for half in scaled.chunk(2, dim=1))
    return both, torch.maximum(gate_peaks, up_peaks), torch.stack(products).float()


@torch.library.custom_op("tenfold::round_and_project", mutates_args=())
def round_and_project(
    x: torch.Tensor, peaks: torch.Tensor, scales: torch.Tensor | None, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [T, N] times `scales` [N] in fp8, with the scale [T, 1] of its rows, whose largest are those of `peaks`
    [T, tiles]; and x a^T, [T, r], in the dtype of x, for a [r, N]: both of one reading of x."""
    scale = peaks.amax(1, keepdim=True).clamp_min(1e-12) / FP8_LARGEST
    wide = x.float() if scales is None else x.float() * scales
    narrow = (wide / scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn)
    return narrow, scale, x @ a.t()


@gated_forward.register_kernel("cuda")
def _(
    gate: torch.Tensor, up: torch.Tensor, thin: torch.Tensor, gate_b: torch.Tensor, up_b: torch.Tensor, activation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    from tenfold.rig import gated_kernels

    return gated_kernels.gated_forward(gate, up, thin, gate_b, up_b, activation)


@gated_backward.register_kernel("cuda")
def _(
    dh: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    thin: torch.Tensor,
    thin_dh: torch.Tensor,
    gate_b: torch.Tensor,
    up_b: torch.Tensor,
    down_a: torch.Tensor,
    scales: torch.Tensor | None,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from tenfold.rig import gated_kernels

    return gated_kernels.gated_backward(dh, gate, up, thin, thin_dh, gate_b, up_b, down_a, scales, activation)


@round_and_project.register_kernel("cuda")
def _(
    x: torch.Tensor, peaks: torch.Tensor, scales: torch.Tensor | None, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from tenfold.rig import gated_kernels

    return gated_kernels.round_and_project(x, peaks, scales, a)


@gated_forward.register_fake
def _(
    gate: torch.Tensor, up: torch.Tensor, thin: torch.Tensor, gate_b: torch.Tensor, up_b: torch.Tensor, activation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty((gate.shape[0], tiles(gate.shape[1])), dtype=torch.float32)


@gated_backward.register_fake
def _(
    dh: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    thin: torch.Tensor,
    thin_dh: torch.Tensor,
    gate_b: torch.Tensor,
    up_b: torch.Tensor,
    down_a: torch.Tensor,
    scales: torch.Tensor | None,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, width = gate.shape
    return (
        gate.new_empty((rows, 2 * width)),
        gate.new_empty((rows, tiles(width)), dtype=torch.float32),
        gate.new_empty((3, *down_a.shape), dtype=torch.float32),
    )


@round_and_project.register_fake
def _(
    x: torch.Tensor, peaks: torch.Tensor, scales: torch.Tensor | None, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = x.shape[0]
    return (
        x.new_empty(x.shape, dtype=torch.float8_e4m3fn),
        x.new_empty((rows, 1), dtype=torch.float32),
        x.new_empty((rows, a.shape[0])),
    )


def tiles(width: int) -> int:
    """How many tiles of columns there are."""
    return ceil(width / TILE)


def _lows(thin: torch.Tensor, gate_b: torch.Tensor, up_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rank = gate_b.shape[1]
    wide = thin.float()
    return wide[:, :rank] @ gate_b.float().T, wide[:, rank:] @ up_b.float().T


def _peaks(x: torch.Tensor) -> torch.Tensor:
    filled = torch.nn.functional.pad(x.abs(), (0, -x.shape[1] % TILE))
    return filled.unflatten(1, (-1, TILE)).amax(2)
