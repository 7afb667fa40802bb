"""Float32 masters in three bytes: a bfloat16 weight, which products read as it is, and eight bits more beside it.

Master weight splitting (arXiv 2005.04680, section 4.3; with eight bits arXiv 2602.23349, section 3.1). A float32 number
has 24 bits of precision, a bfloat16 one 8, both together 16: an update of 2**-17 of its weight and more survives. Of
smaller ones some are rounded up and others down, so that many add up to what they are worth (stochastic rounding, arXiv
1502.02551), by a sequence that depends on the place and the step alone and spreads evenly over the steps of a weight. A
run that continues rounds as one that was never interrupted.
"""

from __future__ import annotations

import torch

LOW_BITS = 8
"""Beside the 16 of the weight; as many of float32's 32 are dropped."""

BY_PLACE, BY_STEP = 3_242_174_889 - 2**32, 2_654_435_769
"""In units of 2**-32: the two steps of an even sequence, 1 / plastic number and 1 / golden ratio, of whole numbers the
more. The first is below 0 so that its products with places stay within 64 bits."""

PLACES_A_STEP = BY_STEP * pow(BY_PLACE, -1, 2**32)
"""A step moves the sequence as far as so many places do."""

MASK = 2**32 - 1


def phase_of(step: int, start: int) -> int:
    """Where the sequence stands for the weight at place `start` in this step, in places."""
    return (start + step * PLACES_A_STEP) & MASK


def thresholds(count: int, phase: int | torch.Tensor, device: torch.device) -> torch.Tensor:
    """int32 [count], 0 to 255, for weights one after the other. `phase`: of the first, a number or int64 [].

    The phase is added to places before they are multiplied: torch's compiler takes multiples of an index for indices
    again, of 32 bits.
    """
    places = torch.arange(count, device=device) + phase
    return (((places * BY_PLACE) & MASK) >> (32 - LOW_BITS)).int()


def split(master: torch.Tensor, threshold: torch.Tensor | int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [...] as bfloat16, rounded to nearest, and int8: what the master is more, in 256ths of the last place.

    `threshold`: int32 of the same size, added to the bits that are dropped before they are; 128 rounds to nearest.
    """
    bits = (master.view(torch.int32) + threshold) & -(1 << LOW_BITS)
    high = (bits + (1 << 15)) & -(1 << 16)
    return high.view(torch.float32).bfloat16(), ((bits - high) >> LOW_BITS).to(torch.int8)


def join(weight: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The master of a bfloat16 weight [...] and its low bits, float32."""
    return (weight.float().view(torch.int32) + (low.int() << LOW_BITS)).view(torch.float32)
