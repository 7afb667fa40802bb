"""What every way of keeping a frozen weight does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch


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


def scale_of_rows(weight: torch.Tensor, largest: float) -> torch.Tensor:
    """[N, 1] float32: what `largest` stands for in each row of float32 `weight` [N, K]. Rows of zeros get 1."""
    amax = weight.abs().amax(dim=1, keepdim=True)
    return torch.where(amax > 0, amax / largest, 1.0)
