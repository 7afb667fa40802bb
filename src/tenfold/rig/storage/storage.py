"""What every way of keeping a frozen weight does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

WEIGHTS_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}
"""So many are encoded together: what is alive in between stays at some tens of megabytes, on a GPU some hundreds, where
smaller pieces would be launched more slowly than they are computed."""

ENCODING_BYTES = 20
"""Alive at most for each of them, beside the weight and its parts: counted, 13 for fp8 and int8, 18 for nf4."""


class Storage(Protocol):
    """How a frozen weight [N, K] is kept: N output rows, K inputs. Stateless and hashable.

    Plain torch operations with static shapes and no read-back to the host, so that torch.compile traces them.
    """

    @property
    def name(self) -> str:
        """What recipes call it."""
        ...

    def store(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of `weight` [N, K], on its device; on the meta device their shapes alone.

        Raises InputError if a weight of this shape cannot be kept so.
        """
        ...

    def load(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """[N, K]: the weight as it now is."""
        ...

    def bits_per_weight(self, in_features: int) -> float:
        """Bits for each weight of a row of `in_features`, scales included."""
        ...


def encode_by_rows(
    weight: torch.Tensor, encode: Callable[[torch.Tensor], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What `encode` makes of `weight` [N, K], given some rows in float32 at a time; every part has N rows.

    A skeleton's weight is one piece: each operation on the meta device takes as long as a small kernel, and there is
    no memory to spare.
    """
    if weight.is_meta:
        return encode(weight.float())
    rows = max(1, WEIGHTS_AT_ONCE["cuda" if weight.is_cuda else "cpu"] // weight.shape[1])
    parts: dict[str, torch.Tensor] = {}
    done = 0
    for piece in weight.split(rows):
        made = encode(piece.contiguous().float())
        for name, own in made.items():
            if name not in parts:
                parts[name] = own.new_empty(weight.shape[0], *own.shape[1:])
            parts[name][done : done + len(piece)] = own
        done += len(piece)
    return parts


def scale_of_rows(weight: torch.Tensor, largest: float) -> torch.Tensor:
    """[N, 1] float32: what `largest` stands for in each row of float32 `weight` [N, K]. Rows of zeros get 1."""
    amax = weight.abs().amax(dim=1, keepdim=True)
    return torch.where(amax > 0, amax / largest, 1.0)
