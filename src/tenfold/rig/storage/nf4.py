"""Four-bit NormalFloat with double quantization: arXiv 2305.14314 (QLoRA), section 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import torch
import torch.nn.functional as F

from tenfold.cuts.quantize import NF4_BLOCK, NF4_GROUP, bits_per_weight
from tenfold.errors import InputError
from tenfold.rig.storage.storage import encode_by_rows

LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of the normal distribution, scaled to [-1, 1], zero among them: ibid., appendix E."""

BETWEEN = tuple((low + high) / 2 for low, high in pairwise(LEVELS))
"""Where the nearest level changes."""


@dataclass(frozen=True)
class Nf4:
    """w = level[code] * absmax of its block of 64 along the row; absmax = code * scale of its 256 + mean of all.

    Parts, with B = ceil(K / 64) blocks a row and G = ceil(N B / 256) groups of blocks, in row-major order:
    `codes` uint8 [N, K / 2]: the even column in the high half, as bitsandbytes has it;
    `absmax` int8 [N, B]; `scales` float32 [G]; `mean` float32 [1];
    `pairs` float32 [256, 2]: the two levels of a byte. A table per weight costs 2 KiB and no copy from the host.

    The last block of a row may be short; an odd K is refused.
    """

    name: str = "nf4"

    def store(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Nearest level of each weight over its block's absolute maximum, that in turn in 8 bits.

        Raises InputError if K is odd.
        """
        if weight.shape[1] % 2:
            raise InputError(
                f"cuts.quantize: nf4 packs two weights in a byte, but a row has {weight.shape[1]}; write int8 or fp8"
            )
        parts = encode_by_rows(weight, _encode)
        levels = torch.tensor(LEVELS, device=weight.device)
        pairs = torch.cartesian_prod(levels, levels)
        return {"codes": parts["codes"], **_store_absmax(parts["absmax"]), "pairs": pairs}

    def load(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """[N, K]."""
        codes, absmax = parts["codes"], _load_absmax(parts)
        rows, columns = codes.shape[0], 2 * codes.shape[1]
        blocks = absmax.shape[1]
        # One expression, so that eager mode frees the levels once they are multiplied. Indexed and not F.embedding, and
        # no F.pad, which a compiler would not make again in the backward pass: it would keep what they made, or the
        # dense weight.
        if columns == blocks * NF4_BLOCK:
            weight = parts["pairs"][codes.int()].view(rows, blocks, NF4_BLOCK) * absmax[..., None]
        else:
            by_code = absmax.repeat_interleave(NF4_BLOCK // 2, 1)[:, : codes.shape[1], None]
            weight = parts["pairs"][codes.int()] * by_code
        return weight.view(rows, columns).to(dtype)

    def bits_per_weight(self, in_features: int) -> float:
        """4, and a weight's share of 8 bits a block and 32 a group."""
        return bits_per_weight("nf4", in_features)


def _encode(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of some rows: two codes a byte, and the absolute maximum of each block, float32 as yet."""
    rows, columns = weight.shape
    blocks = ceil(columns / NF4_BLOCK)
    blocked = F.pad(weight, (0, blocks * NF4_BLOCK - columns)).view(rows, blocks, NF4_BLOCK)
    absmax = blocked.abs().amax(dim=2)
    unit = blocked / torch.where(absmax > 0, absmax, 1.0)[..., None]
    between = torch.tensor(BETWEEN, device=weight.device)
    codes = torch.bucketize(unit, between, out_int32=True).to(torch.uint8).view(rows, -1)[:, :columns]
    return {"codes": (codes[:, 0::2] << 4) | codes[:, 1::2], "absmax": absmax}


def _store_absmax(absmax: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of absmax [N, B]: its mean, and the rest in 8 bits by groups of 256."""
    count = absmax.numel()
    groups = ceil(count / NF4_GROUP)
    mean = absmax.mean().view(1)
    rest = absmax - mean
    grouped = F.pad(rest.flatten(), (0, groups * NF4_GROUP - count)).view(groups, NF4_GROUP)
    largest = grouped.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127.0, 1.0)
    codes = (rest / _of_blocks(scales, absmax.shape)).round().to(torch.int8)
    return {"absmax": codes, "scales": scales, "mean": mean}


def _load_absmax(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """[N, B] float32; never negative, as rounding could make the smallest."""
    codes = parts["absmax"]
    return (codes.float() * _of_blocks(parts["scales"], codes.shape) + parts["mean"]).clamp_min(0.0)


def _of_blocks(scales: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The scale of each block [N, B], from those of the groups [G]."""
    return scales[:, None].expand(-1, NF4_GROUP).reshape(-1)[: shape.numel()].view(shape)
