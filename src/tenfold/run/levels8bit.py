"""Numbers in eight bits, in blocks that share a scale: arXiv 2110.02861, blockwise dynamic quantization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

BLOCK = 256
"""Values that share a scale, their largest magnitude."""

DECADES = 7


@dataclass(frozen=True)
class Levels:
    """256 numbers of magnitude 1 and less, in rising order, and where the nearest of them changes [255]."""

    values: torch.Tensor
    between: torch.Tensor
    signed: bool

    @classmethod
    def dynamic(cls, signed: bool, device: torch.device) -> Levels:
        """Seven decades, each evenly divided, the upper ones finer (ibid., section 1.3); then 0 and 1."""
        numbers = [0.0, 1.0]
        for decade in range(DECADES):
            count = _count(decade, signed)
            middles = [10.0 ** (decade - 6) * (0.1 + 0.9 * (place + 0.5) / count) for place in range(count)]
            numbers += [*middles, *(-middle for middle in middles)] if signed else middles
        values = torch.tensor(sorted(numbers), device=device)
        return cls(values, (values[1:] + values[:-1]) / 2, signed)


def _count(decade: int, signed: bool) -> int:
    return 2**decade if signed else 2 ** (decade + 1)


def quantize(blocks: torch.Tensor, levels: Levels, by_decade: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 [n, 256] and scales float32 [n] of float32 `blocks` [n, 256].

    By unsigned levels nothing positive becomes 0: it will stand below a fraction bar. `by_decade`: the level is
    computed, not sought in a table: more operations, but each for a single number, so that a compiler makes one of all.
    """
    scales = blocks.abs().amax(dim=1)
    unit = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    codes = codes_by_decade(unit, levels.signed) if by_decade else torch.bucketize(unit, levels.between, out_int32=True)
    if not levels.signed:
        codes = torch.where(blocks > 0, codes.clamp_min(1), codes)
    return codes.to(torch.uint8), scales


def codes_by_decade(unit: torch.Tensor, signed: bool) -> torch.Tensor:
    """int32, as seeking the nearest level, where no two are equally near within float32's precision."""
    size = unit.abs()
    places = torch.zeros_like(size)
    start, below = 1, 0.0
    for decade in range(DECADES):
        count, least = _count(decade, signed), 0.1 * 10.0 ** (decade - 6)
        width = 0.9 * 10.0 ** (decade - 6) / count
        here = ((size - least) * (1 / width)).floor().clamp(0, count - 1) + start
        places = torch.where(size >= (below + least + width / 2) / 2, here, places)
        start, below = start + count, least + width * (count - 0.5)
    places = torch.where(size >= (below + 1) / 2, float(start), places)
    if signed:  # the 127 levels below zero come first, and there is no -1
        places = torch.where(unit < 0, start - 1 - places.clamp_max(start - 1), start - 1 + places)
    return places.int()


def dequantize(codes: torch.Tensor, scales: torch.Tensor, levels: Levels) -> torch.Tensor:
    """float32 [n, 256]."""
    return F.embedding(codes.int(), levels.values[:, None]).squeeze(-1) * scales[:, None]
