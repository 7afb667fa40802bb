"""Eight-bit floating point, 4 bits of exponent and 3 of mantissa, one scale per output row: arXiv 2209.05433."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tenfold.cuts.quantize import bits_per_weight
from tenfold.rig.storage.storage import encode_by_rows, scale_of_rows

LARGEST = 448.0
"""The largest number of float8_e4m3fn."""


@dataclass(frozen=True)
class Fp8:
    """w = code * scale of its row. Parts: `codes` float8_e4m3fn [N, K], `scale` float32 [N, 1]."""

    name: str = "fp8"

    def store(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Round to the nearest number of the format, after each row's largest was made its largest."""
        return encode_by_rows(weight, _encode)

    def load(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """[N, K]."""
        return (parts["codes"].float() * parts["scale"]).to(dtype)

    def bits_per_weight(self, in_features: int) -> float:
        """8 and a row's share of its scale."""
        return bits_per_weight("fp8", in_features)


def _encode(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = scale_of_rows(weight, LARGEST)
    return {"codes": (weight / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), "scale": scale}
