"""Eight-bit integers, symmetric, one scale per output row: arXiv 2208.07339, without its outlier columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tenfold.cuts.quantize import bits_per_weight
from tenfold.rig.storage.storage import encode_by_rows, scale_of_rows

LARGEST = 127.0


@dataclass(frozen=True)
class Int8:
    """w = code * scale of its row. Parts: `codes` int8 [N, K], `scale` float32 [N, 1]."""

    name: str = "int8"

    def store(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Round to the nearest of 255 steps of each row's scale."""
        return encode_by_rows(weight, _encode)

    def load(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """[N, K]."""
        return (parts["codes"].float() * parts["scale"]).to(dtype)

    def bits_per_weight(self, in_features: int) -> float:
        """8 and a row's share of its scale."""
        return bits_per_weight("int8", in_features)


def _encode(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = scale_of_rows(weight, LARGEST)
    return {"codes": (weight / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), "scale": scale}
