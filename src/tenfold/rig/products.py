"""Products of a frozen weight with adapters on it: one autograd function, whatever the weight is kept as.

With x [T, K], a frozen weight W [N, K] and adapters A [r, K], B [N, r]:

    forward    y  = x W^T + scale (x A^T) B^T
    backward   dx = dy W + scale (dy B) A,   dB = scale dy^T (x A^T),   dA = scale (dy B)^T x

Nothing but x and x A^T is kept, and no gradient of W is ever made (arXiv 2106.09685). Layers that read the same x are
one product in either pass: their weights lie under each other, their adapters' A too, and their dy side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from tenfold.rig.operands import Operand


class AdaptedProduct(torch.autograd.Function):
    """The formulas at the head of this file for one or more layers that read the same x.

    Sums of products are made in float32 and rounded once. They are written as additions and not as addmm, which a
    compiler would call with a copy of the addend; so they become part of whatever reads the sum.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, operand: Operand, parts: int, scale: float, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`tensors`: the `parts` of the weights, then A of each layer, then B of each layer."""
        weight, down, up = _split(tensors, parts)
        thin = x @ _stack(down, x.dtype).t()
        places = _ranges(up)
        dense = operand.products(x, weight, places)
        ctx.save_for_backward(x, thin, *tensors)
        ctx.operand, ctx.parts, ctx.scale = operand, parts, scale
        outputs: list[torch.Tensor] = []
        for base, b, ranks in zip(dense, up, _ranges(down), strict=True):
            low = thin[:, ranks] @ (b * scale).to(x.dtype).t()
            outputs.append((base.float() + low.float()).to(x.dtype))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, thin, *tensors = ctx.saved_tensors
        weight, down, up = _split(tensors, ctx.parts)
        up_gradients: list[torch.Tensor] = []
        thin_gradients: list[torch.Tensor] = []
        for dy, b, ranks in zip(grads, up, _ranges(down), strict=True):
            up_gradients.append((dy.t() @ thin[:, ranks]).to(b.dtype) * ctx.scale)
            thin_gradients.append(dy @ (b * ctx.scale).to(dy.dtype))
        thin_gradient = torch.cat(thin_gradients, dim=1)
        down_gradient = thin_gradient.t() @ x
        x_gradient = None
        if ctx.needs_input_grad[0]:
            wide = ctx.operand.input_gradient(grads, weight)
            x_gradient = (wide.float() + (thin_gradient @ _stack(down, x.dtype)).float()).to(x.dtype)
        down_gradients = [down_gradient[ranks].to(a.dtype) for a, ranks in zip(down, _ranges(down), strict=True)]
        return (x_gradient, None, None, None, *[None] * len(weight), *down_gradients, *up_gradients)


def _split(
    tensors: Sequence[torch.Tensor], parts: int
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    layers = (len(tensors) - parts) // 2
    return tensors[:parts], tensors[parts : parts + layers], tensors[parts + layers :]


def _stack(down: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The A of all layers under each other: [ranks, K]."""
    return torch.cat([a.to(dtype) for a in down])


def _ranges(tensors: Sequence[torch.Tensor]) -> list[slice]:
    """Where each tensor would stand if they were laid end to end."""
    ends = list(accumulate(tensor.shape[0] for tensor in tensors))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
