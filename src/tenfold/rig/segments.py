"""Where packed rows begin and end, and attention that keeps them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from tenfold.workload import BUCKET_FILL, SHORT_ROW_TOKENS


@dataclass(frozen=True)
class Bucket:
    """Packed rows of like length, seen as [rows, length]."""

    index: torch.Tensor
    """[rows * length] int64: which packed token stands in each cell; cells past a row's end repeat its first token."""
    valid: torch.Tensor
    """[rows, length] bool: False past a row's end."""
    full: bool
    """Every cell is valid."""

    @property
    def length(self) -> int:
        return self.valid.shape[1]

    def to(self, device: torch.device, non_blocking: bool = False) -> Bucket:
        return Bucket(
            self.index.to(device, non_blocking=non_blocking),
            self.valid.to(device, non_blocking=non_blocking),
            self.full,
        )


@dataclass(frozen=True)
class Segments:
    """T packed tokens of several rows, and their place in buckets and in the padded [B, L] layout."""

    buckets: tuple[Bucket, ...]
    restore: torch.Tensor
    """[T] int64: where each packed token stands in the buckets' cells, laid end to end."""
    cells: torch.Tensor
    """[T] int64: where each packed token stands in the flattened padded layout."""
    padded_shape: tuple[int, int]
    filler: int = 0
    """Tokens after the last row that belong to none: their queries are not asked, and nothing sees them."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Segments:
        """These segments on `device`."""
        return Segments(
            tuple(bucket.to(device, non_blocking) for bucket in self.buckets),
            self.restore.to(device, non_blocking=non_blocking),
            self.cells.to(device, non_blocking=non_blocking),
            self.padded_shape,
            self.filler,
        )


def segment_rows(lengths: Sequence[int], multiple: int = 1) -> Segments:
    """Segments of rows of these lengths, packed end to end in this order, and filler up to a multiple."""
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    restore = torch.empty(starts[-1], dtype=torch.long)
    longest = max(lengths)
    cells = torch.cat([row * longest + torch.arange(length) for row, length in enumerate(lengths)])
    buckets: list[Bucket] = []
    offset = 0
    for rows in _bucket_rows(lengths):
        width = lengths[rows[0]]
        columns = torch.arange(width)
        first = torch.tensor([starts[row] for row in rows])[:, None]
        size = torch.tensor([lengths[row] for row in rows])[:, None]
        valid = columns < size
        index = (first + torch.where(valid, columns, 0)).flatten()
        place = offset + torch.arange(index.numel())
        restore[index[valid.flatten()]] = place[valid.flatten()]
        buckets.append(Bucket(index, valid, full=bool(valid.all())))
        offset += index.numel()
    return Segments(tuple(buckets), restore, cells, (len(lengths), longest), -starts[-1] % multiple)


def _bucket_rows(lengths: Sequence[int]) -> list[list[int]]:
    """Rows grouped by like length, the longest row of each group first."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        head = lengths[groups[-1][0]] if groups else 0
        if groups and (head <= SHORT_ROW_TOKENS or lengths[row] >= BUCKET_FILL * head):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _gather(values: torch.Tensor, index: torch.Tensor, filler: int) -> torch.Tensor:
    """values[index], and so many zeros after it, in one pass."""
    if filler == 0:
        return values.index_select(0, index)
    gathered = values.new_empty(len(index) + filler, *values.shape[1:])
    torch.index_select(values, 0, index, out=gathered[: len(index)])
    gathered[len(index) :] = 0
    return gathered


class _ToBuckets(torch.autograd.Function):
    """Packed tokens [T + filler, ...] to bucket cells [cells, ...] of a dtype; backward is a gather too, since each
    token has one cell."""

    @staticmethod
    def forward(
        ctx: Any,
        packed: torch.Tensor,
        index: torch.Tensor,
        restore: torch.Tensor,
        filler: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        ctx.save_for_backward(restore)
        ctx.filler, ctx.dtype = filler, packed.dtype
        return packed.index_select(0, index).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:  # type: ignore[override]
        (restore,) = ctx.saved_tensors
        return _gather(grad.to(ctx.dtype), restore, ctx.filler), None, None, None, None


class _FromBuckets(torch.autograd.Function):
    """Bucket cells [cells, ...] to packed tokens [T + filler, ...] of a dtype; cells that are not valid receive no
    gradient; None: all are."""

    @staticmethod
    def forward(
        ctx: Any,
        cells: torch.Tensor,
        index: torch.Tensor,
        restore: torch.Tensor,
        valid: torch.Tensor | None,
        filler: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        ctx.save_for_backward(index, valid)
        ctx.dtype = cells.dtype
        return _gather(cells.to(dtype), restore, filler)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None, None]:  # type: ignore[override]
        index, valid = ctx.saved_tensors
        picked = grad.index_select(0, index).to(ctx.dtype)
        if valid is not None:
            picked *= valid[:, None, None].to(ctx.dtype)
        return picked, None, None, None, None, None


def attend_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    *,
    causal: bool,
    scaling: float | None,
    window: int | None,
    dropout: float,
) -> torch.Tensor:
    """Attention of packed rows, each within itself, on any device.

    query [1, heads, T, D]; key and value [1, kv_heads, T, D]. Returns [1, T, heads, D].
    """
    index = torch.cat([bucket.index for bucket in segments.buckets])
    full = all(bucket.full for bucket in segments.buckets)
    valid = None if full else torch.cat([bucket.valid.flatten() for bucket in segments.buckets])
    dtype = _working_dtype(query)
    sizes = [bucket.valid.numel() for bucket in segments.buckets]
    states = [  # of each bucket [cells, heads, D]; one split, since each slice's backward would fill a whole tensor
        _ToBuckets.apply(state[0].transpose(0, 1), index, segments.restore, segments.filler, dtype).split(sizes)
        for state in (query, key, value)
    ]
    attended: list[torch.Tensor] = []
    for bucket, *cells in zip(segments.buckets, *states, strict=True):
        q, k, v = (s.unflatten(0, bucket.valid.shape).transpose(1, 2) for s in cells)
        mask = _mask(bucket, causal, window)
        grouped = q.shape[1] != k.shape[1]
        if grouped and mask is not None:  # the kernels that take a mask want as many key heads as query heads
            groups = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
            grouped = False
        with torch.autocast(q.device.type, enabled=False):  # it would narrow what is float32 on purpose
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        attended.append(out.transpose(1, 2).flatten(0, 1))
    together = torch.cat(attended) if len(attended) > 1 else attended[0]
    packed = _FromBuckets.apply(together, index, segments.restore, valid, segments.filler, query.dtype)
    return packed.unsqueeze(0)


def _working_dtype(query: torch.Tensor) -> torch.dtype:
    """What attention computes in: float32 on a CPU.

    There PyTorch's fused kernel makes a small product for each head, and forward and backward together take 1.6 to
    6 times as long in bfloat16 as in float32 (rows of 25 to 190 tokens, torch 2.13, Xeon with AMX).
    """
    return torch.float32 if query.device.type == "cpu" else query.dtype


def _mask(bucket: Bucket, causal: bool, window: int | None) -> torch.Tensor | None:
    """What each query may see, or None where causality alone (or nothing) hides keys.

    Past a row's end there are only later keys, which a causal query does not see anyway.
    """
    length = bucket.length
    if window is None or length <= window:
        return None if causal or bucket.full else bucket.valid[:, None, None, :]
    position = torch.arange(length, device=bucket.valid.device)
    distance = position[:, None] - position[None, :]
    near = (distance >= 0) & (distance < window) if causal else distance.abs() < window
    return near[None, None] if causal else near[None, None] & bucket.valid[:, None, None, :]
