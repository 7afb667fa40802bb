"""Eight-bit integers, symmetric, one scale per output row: arXiv 2208.07339, without its outlier columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tenfold.cuts.quantize import bits_per_weight
from tenfold.rig.storage.storage import scale_of_rows

LARGEST = 127.0


@dataclass(frozen=True)
class Int8:
    """w = code * scale of its row. Parts: `codes` int8 [N, K], `scale` float32 [N, 1]."""

    name: str = "int8"

    def store(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Round to the nearest of 255 steps of each row's scale."""
        wide = weight.float()
        scale = scale_of_rows(wide, LARGEST)
        codes = (wide / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        return {"codes": codes, "scale": scale}

    def load(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """[N, K]."""
        return (parts["codes"].float() * parts["scale"]).to(dtype)

    def bits_per_weight(self, in_features: int) -> float:
        """8 and a row's share of its scale."""
        return bits_per_weight("int8", in_features)
