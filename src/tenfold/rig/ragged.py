"""Packed rows in shapes that stay the same, and the attention of GPUs over them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn

from tenfold.workload import power_of_two

_varlen: Callable[..., torch.Tensor] = (
    partial(varlen_attn, enable_gqa=True) if "enable_gqa" in inspect.signature(varlen_attn).parameters else varlen_attn  # type: ignore[assignment]
)
"""From torch 2.12 on, fewer key heads than query heads have to be asked for; before, the kernel just took them."""


@dataclass(frozen=True)
class Ragged:
    """Packed rows by where they start. Few different shapes, so that what is compiled or recorded once serves all."""

    starts: torch.Tensor
    """[D + 1] int32: the first token of each row and, from the last row on, the number of tokens T."""
    longest: int
    """No row is longer; a power of two, or the length of all rows."""
    uniform: bool
    """All D rows have the length `longest`, and none of them is filler."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Ragged:
        """The same on `device`."""
        return replace(self, starts=self.starts.to(device, non_blocking=non_blocking))


SHORTEST_LIMIT = 1024
"""Rows that are shorter have it as their common limit: the kernel's blocks past a row's end cost next to nothing, and
every other limit is a shape of its own, to be compiled and recorded."""

TOKENS_A_PLACE = 128
"""There are places for at least so many rows as would be on average this long, for the same reason."""


def ragged_rows(rows: Sequence[int], filling: Sequence[int] = ()) -> Ragged:
    """Rows of these lengths end to end, then those of filler, counted in powers of two: places beyond the last row hold
    rows of no length."""
    lengths = [*rows, *filling]
    ends = torch.tensor(lengths).cumsum(0)
    total = int(ends[-1])
    if not filling and len(set(lengths)) == 1:
        starts = torch.arange(0, total + 1, lengths[0])
        return Ragged(starts.int(), lengths[0], uniform=True)
    places = power_of_two(max(len(lengths), total // TOKENS_A_PLACE))
    starts = torch.full((places + 1,), total)
    starts[0] = 0
    starts[1 : len(lengths) + 1] = ends
    return Ragged(starts.int(), power_of_two(max(*lengths, SHORTEST_LIMIT)), uniform=False)


def attend_ragged(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Ragged,
    *,
    causal: bool,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attention of packed rows, each within itself, in bfloat16 or float16 on a GPU; no row of the result is a copy.

    query [1, heads, T, D]; key and value [1, kv_heads, T, D]. Returns [1, T, heads, D]. Rows of one length without a
    window go to torch's dense kernels (cuDNN's on Hopper, about twice as fast), others to its variable-length one.
    """
    if rows.uniform and (window is None or rows.longest <= window):
        q, k, v = (state[0].unflatten(1, (-1, rows.longest)).transpose(0, 1) for state in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling, enable_gqa=grouped)
        return out.transpose(1, 2).flatten(0, 1)[None]
    q, k, v = (state[0].transpose(0, 1).contiguous() for state in (query, key, value))
    left = -1 if window is None else window - 1
    right = 0 if causal else left
    starts, longest = rows.starts, rows.longest
    return _varlen(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(left, right))[None]
