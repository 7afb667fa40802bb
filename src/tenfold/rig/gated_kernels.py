"""The operations of rig/gated_passes as Triton kernels: each reads and writes every wide matrix once.

A program holds a tile of rows and columns; what the adapters add is a product with the r-wide factor inside the tile,
on the matrix units. Bytes a token, F wide, in bfloat16: gated_forward 6 F, gated_backward 10 F, round_and_project 3 N.
"""

# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false, reportMissingParameterType=false
# pyright: reportIndexIssue=false, reportUnusedVariable=false
# Triton comes with torch's CUDA builds alone, and its kernels are not typed.

from __future__ import annotations

from math import ceil

import torch
import triton
import triton.language as tl

from tenfold.rig.gated_passes import TILE, tiles
from tenfold.rig.operands import FP8_LARGEST

MOST_SPLITS = 16
"""So many programs share the rows of a column tile in gated_backward; each leaves one partial sum of its products."""

LEAST_RANK = 16
"""The matrix units' smallest inner dimension."""

FORWARD, BACKWARD, ROUND = (64, 8), (64, 8), (256, 4, 3)
"""Rows a program and warps, for the first two; columns at a time, warps and stages of the pipeline for the third."""


@triton.jit
def _activate(x, GELU: tl.constexpr):
    """act(x) and act'(x), as gated_passes.activate."""
    if GELU:
        share = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        slope = 1.5957691216057308 * (1.0 + 0.134145 * x * x)
        return x * share, share * (1.0 + x * (1.0 - share) * slope)
    share = tl.sigmoid(x)
    return x * share, share * (1.0 + x * (1.0 - share))


@triton.jit
def _forward_kernel(
    gate, up, thin, gate_b, up_b, h, peaks,
    ROWS, WIDTH, gate_stride, up_stride, thin_stride, TILES,
    RANK: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    rows = (tl.program_id(1) * BM + tl.arange(0, BM)).to(tl.int64)
    columns = tile * BN + tl.arange(0, BN)
    ranks = tl.arange(0, R)
    inside = (rows < ROWS)[:, None] & (columns < WIDTH)[None, :]
    thin_at = thin + rows[:, None] * thin_stride + ranks[None, :]
    thin_inside = (rows < ROWS)[:, None] & (ranks < RANK)[None, :]
    b_at = columns[None, :] * RANK + ranks[:, None]
    b_inside = (columns < WIDTH)[None, :] & (ranks < RANK)[:, None]
    low = tl.dot(tl.load(thin_at, thin_inside, 0.0), tl.load(gate_b + b_at, b_inside, 0.0))
    base = tl.load(gate + rows[:, None] * gate_stride + columns[None, :], inside, 0.0).to(tl.float32)
    act, _ = _activate(base + low, GELU)
    low = tl.dot(tl.load(thin_at + RANK, thin_inside, 0.0), tl.load(up_b + b_at, b_inside, 0.0))
    wide = act * (tl.load(up + rows[:, None] * up_stride + columns[None, :], inside, 0.0).to(tl.float32) + low)
    narrow = wide.to(h.dtype.element_ty)
    tl.store(h + rows[:, None] * WIDTH + columns[None, :], narrow, inside)
    peak = tl.max(tl.where(inside, tl.abs(narrow.to(tl.float32)), 0.0), 1)
    tl.store(peaks + rows * TILES + tile, peak, rows < ROWS)


@triton.jit
def _backward_kernel(
    dh, gate, up, thin, thin_dh, gate_b, up_b, down_a, scales, both, peaks, products,
    ROWS, WIDTH, SHARE, dh_stride, gate_stride, up_stride, thin_stride, thin_dh_stride, TILES,
    RANK: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, GELU: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    columns = tile * BN + tl.arange(0, BN)
    ranks = tl.arange(0, R)
    column_inside = columns < WIDTH
    rank_inside = ranks < RANK
    b_at = columns[None, :] * RANK + ranks[:, None]
    b_inside = column_inside[None, :] & rank_inside[:, None]
    a_at = ranks[:, None] * WIDTH + columns[None, :]
    a = tl.load(down_a + a_at, b_inside, 0.0)
    b_gate = tl.load(gate_b + b_at, b_inside, 0.0)
    b_up = tl.load(up_b + b_at, b_inside, 0.0)
    gate_scale = tl.full((BN,), 1.0, tl.float32)
    up_scale = tl.full((BN,), 1.0, tl.float32)
    if SCALED:
        gate_scale = tl.load(scales + columns, column_inside, 0.0)
        up_scale = tl.load(scales + WIDTH + columns, column_inside, 0.0)
    of_down = tl.zeros((R, BN), tl.float32)
    of_gate = tl.zeros((R, BN), tl.float32)
    of_up = tl.zeros((R, BN), tl.float32)
    for start in range(split * SHARE, tl.minimum(ROWS, (split + 1) * SHARE), BM):
        rows = (start + tl.arange(0, BM)).to(tl.int64)
        row_inside = rows < ROWS
        inside = row_inside[:, None] & column_inside[None, :]
        thin_inside = row_inside[:, None] & rank_inside[None, :]
        t = tl.load(thin_dh + rows[:, None] * thin_dh_stride + ranks[None, :], thin_inside, 0.0)
        thin_at = thin + rows[:, None] * thin_stride + ranks[None, :]
        thin_gate = tl.load(thin_at, thin_inside, 0.0)
        thin_up = tl.load(thin_at + RANK, thin_inside, 0.0)
        d = tl.load(dh + rows[:, None] * dh_stride + columns[None, :], inside, 0.0).to(tl.float32) + tl.dot(t, a)
        g = tl.load(gate + rows[:, None] * gate_stride + columns[None, :], inside, 0.0).to(tl.float32)
        u = tl.load(up + rows[:, None] * up_stride + columns[None, :], inside, 0.0).to(tl.float32)
        act, slope = _activate(g + tl.dot(thin_gate, b_gate), GELU)
        u += tl.dot(thin_up, b_up)
        d_gate = (d * u * slope).to(both.dtype.element_ty)
        d_up = (d * act).to(both.dtype.element_ty)
        both_at = both + rows[:, None] * (2 * WIDTH) + columns[None, :]
        tl.store(both_at, d_gate, inside)
        tl.store(both_at + WIDTH, d_up, inside)
        of_down += tl.dot(tl.trans(t), (act * u).to(t.dtype))
        of_gate += tl.dot(tl.trans(thin_gate), d_gate)
        of_up += tl.dot(tl.trans(thin_up), d_up)
        peak = tl.maximum(
            tl.abs(d_gate.to(tl.float32)) * gate_scale[None, :], tl.abs(d_up.to(tl.float32)) * up_scale[None, :]
        )
        tl.store(peaks + rows * TILES + tile, tl.max(tl.where(inside, peak, 0.0), 1), row_inside)
    at = products + split.to(tl.int64) * (3 * RANK * WIDTH) + a_at
    tl.store(at, of_down, b_inside)
    tl.store(at + RANK * WIDTH, of_gate, b_inside)
    tl.store(at + 2 * RANK * WIDTH, of_up, b_inside)


@triton.jit
def _round_kernel(
    x, peaks, scales, a, narrow, row_scales, thin,
    ROWS, WIDTH, x_stride, TILES,
    RANK: tl.constexpr, R: tl.constexpr, P: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SCALED: tl.constexpr,
    LARGEST: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    ranks = tl.arange(0, R)
    row_inside = rows < ROWS
    places = tl.arange(0, P)
    peak = tl.load(
        peaks + rows[:, None] * TILES + places[None, :], row_inside[:, None] & (places < TILES)[None, :], 0.0
    )
    scale = tl.maximum(tl.max(peak, 1), 1e-12) / LARGEST
    tl.store(row_scales + rows, scale, row_inside)
    inverse = 1.0 / scale
    total = tl.zeros((BM, R), tl.float32)
    for start in range(0, WIDTH, BN):
        columns = start + tl.arange(0, BN)
        column_inside = columns < WIDTH
        inside = row_inside[:, None] & column_inside[None, :]
        value = tl.load(x + rows[:, None] * x_stride + columns[None, :], inside, 0.0)
        factors = tl.load(
            a + ranks[None, :] * WIDTH + columns[:, None], (ranks < RANK)[None, :] & column_inside[:, None], 0.0
        )
        total += tl.dot(value, factors)
        wide = value.to(tl.float32)
        if SCALED:
            wide *= tl.load(scales + columns, column_inside, 0.0)[None, :]
        wide = tl.minimum(tl.maximum(wide * inverse[:, None], -LARGEST), LARGEST)
        tl.store(narrow + rows[:, None] * WIDTH + columns[None, :], wide.to(narrow.dtype.element_ty), inside)
    thin_inside = row_inside[:, None] & (ranks < RANK)[None, :]
    tl.store(thin + rows[:, None] * RANK + ranks[None, :], total.to(thin.dtype.element_ty), thin_inside)


def gated_forward(
    gate: torch.Tensor,
    up: torch.Tensor,
    thin: torch.Tensor,
    gate_b: torch.Tensor,
    up_b: torch.Tensor,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As gated_passes.gated_forward."""
    rows, width = gate.shape
    h = torch.empty((rows, width), dtype=gate.dtype, device=gate.device)
    peaks = torch.empty((rows, tiles(width)), dtype=torch.float32, device=gate.device)
    block, warps = FORWARD
    _forward_kernel[(tiles(width), ceil(rows / block))](
        gate, up, thin, gate_b.contiguous(), up_b.contiguous(), h, peaks,
        rows, width, gate.stride(0), up.stride(0), thin.stride(0), tiles(width),
        RANK=gate_b.shape[1], R=_padded(gate_b.shape[1]), BM=block, BN=TILE, GELU=activation != "silu",
        num_warps=warps,
    )  # fmt: skip
    return h, peaks


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
    """As gated_passes.gated_backward."""
    (rows, width), rank, (block, warps) = gate.shape, gate_b.shape[1], BACKWARD
    blocks = ceil(rows / block)
    share = block * ceil(blocks / min(MOST_SPLITS, blocks))
    splits = ceil(rows / share)
    both = torch.empty((rows, 2 * width), dtype=gate.dtype, device=gate.device)
    peaks = torch.empty((rows, tiles(width)), dtype=torch.float32, device=gate.device)
    products = torch.empty((splits, 3, rank, width), dtype=torch.float32, device=gate.device)
    _backward_kernel[(tiles(width), splits)](
        dh, gate, up, thin, thin_dh, gate_b.contiguous(), up_b.contiguous(), down_a.contiguous(),
        peaks if scales is None else scales, both, peaks, products,
        rows, width, share, dh.stride(0), gate.stride(0), up.stride(0), thin.stride(0), thin_dh.stride(0),
        tiles(width),
        RANK=rank, R=_padded(rank), BM=block, BN=TILE, GELU=activation != "silu", SCALED=scales is not None,
        num_warps=warps,
    )  # fmt: skip
    return both, peaks, products.sum(0)


def round_and_project(
    x: torch.Tensor, peaks: torch.Tensor, scales: torch.Tensor | None, a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As gated_passes.round_and_project."""
    (rows, width), rank = x.shape, a.shape[0]
    narrow = torch.empty((rows, width), dtype=torch.float8_e4m3fn, device=x.device)
    row_scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    thin = torch.empty((rows, rank), dtype=x.dtype, device=x.device)
    columns, warps, stages = ROUND
    block = 16 if rows <= 8192 else 32
    _round_kernel[(ceil(rows / block),)](
        x, peaks, peaks if scales is None else scales, a.contiguous(), narrow, row_scales, thin,
        rows, width, x.stride(0), peaks.shape[1],
        RANK=rank, R=_padded(rank), P=triton.next_power_of_2(peaks.shape[1]), BM=block,
        BN=columns, SCALED=scales is not None, LARGEST=FP8_LARGEST, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return narrow, row_scales, thin


def _padded(rank: int) -> int:
    return max(LEAST_RANK, triton.next_power_of_2(rank))
