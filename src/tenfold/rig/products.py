"""Products of a frozen weight with adapters on it: one autograd function, whatever the weight is kept as.

With x [T, K], a frozen weight W [N, K] and adapters A [r, K], B [N, r]:

    forward    y  = x W^T + scale (x A^T) B^T
    backward   dx = dy W + scale (dy B) A,   dB = scale dy^T (x A^T),   dA = scale (dy B)^T x

Nothing but x and x A^T is kept, and no gradient of W is ever made (arXiv 2106.09685). Layers that read the same x are
one product in the forward pass: their weights lie under each other, and their adapters' A too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import torch

FP8_LARGEST = 448.0
"""The largest float8_e4m3fn (arXiv 2209.05433, table 1)."""


class Operand(Protocol):
    """How frozen weights [N, K] multiply; stateless. `parts` are the tensors that hold those of all layers."""

    @staticmethod
    def product(x: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """x [T, K] to x W^T [T, N], all layers beside each other."""
        ...

    @staticmethod
    def input_gradient(dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] of one layer, whose weight is W[rows], to dy W[rows], [T, K]."""
        ...


class Dense:
    """Weights as they are: one part [N, K] in the dtype of x."""

    @staticmethod
    def product(x: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """x [T, K] to x W^T [T, N]."""
        return x @ parts[0].t()

    @staticmethod
    def input_gradient(dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]."""
        return dy @ parts[0][rows]


class Fp8:
    """Both sides in float8_e4m3fn with a float32 scale per row, sums in float32.

    Parts: values [N, K] float8_e4m3fn and their scale [N] float32. If there are more, they are the values of each layer
    transposed, [K, n] contiguous; else that copy is made anew in each backward pass: the hardware wants both factors to
    be contiguous along the summed dimension.
    """

    @staticmethod
    def product(x: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """x [T, K] to x W^T [T, N]; x is rounded to fp8."""
        narrow, scale = fp8_rows(x)
        return scaled_product(narrow, scale, parts[0], parts[1])

    @staticmethod
    def input_gradient(dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]; W's row scales join dy before it is rounded to fp8."""
        narrow, scale = fp8_rows(dy.float() * parts[1][rows])
        turned = parts[2 + layer] if len(parts) > 2 else parts[0][rows].t().contiguous()
        ones = torch.ones(turned.shape[0], dtype=torch.float32, device=dy.device)
        return scaled_product(narrow, scale, turned, ones)


def fp8_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, K] as float8_e4m3fn and the float32 scale [T, 1] of each row; rows of zeros stay zeros."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min(1e-12) / FP8_LARGEST
    return (wide / scale).to(torch.float8_e4m3fn), scale


def scaled_product(x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(x_scale x) (scale weight)^T for fp8 x [T, K] with x_scale [T, 1] and fp8 weight [N, K] with scale [N].

    bfloat16 [T, N] from the fp8 units of a GPU; elsewhere float32, the same numbers multiplied the long way.
    """
    if x.is_cuda:
        return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]  # it has no public name
            x, weight.t(), scale_a=x_scale, scale_b=scale[None], out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return (x.float() * x_scale) @ (weight.float() * scale[:, None]).t()


class AdaptedProduct(torch.autograd.Function):
    """The formulas at the head of this file for one or more layers that read the same x.

    Sums of products are made in float32 and rounded once. They are written as additions and not as addmm, which a
    compiler would call with a copy of the addend; so they become part of whatever reads the sum.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, operand: type[Operand], parts: int, scale: float, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """`tensors`: the `parts` of the weights, then A of each layer, then B of each layer."""
        weight, down, up = _split(tensors, parts)
        thin = x @ _stack(down, x.dtype).t()
        dense = operand.product(x, weight)
        ctx.save_for_backward(x, thin, *tensors)
        ctx.operand, ctx.parts, ctx.scale = operand, parts, scale
        outputs: list[torch.Tensor] = []
        for b, rows, ranks in zip(up, _ranges(up), _ranges(down), strict=True):
            low = thin[:, ranks] @ (b * scale).to(x.dtype).t()
            outputs.append((dense[:, rows].float() + low.float()).to(x.dtype))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, thin, *tensors = ctx.saved_tensors
        weight, down, up = _split(tensors, ctx.parts)
        up_gradients: list[torch.Tensor] = []
        thin_gradients: list[torch.Tensor] = []
        wide: list[torch.Tensor] = []
        places = zip(grads, up, _ranges(up), _ranges(down), strict=True)
        for layer, (dy, b, rows, ranks) in enumerate(places):
            up_gradients.append((dy.t() @ thin[:, ranks]).to(b.dtype) * ctx.scale)
            thin_gradients.append(dy @ (b * ctx.scale).to(dy.dtype))
            if ctx.needs_input_grad[0]:
                wide.append(ctx.operand.input_gradient(dy, weight, layer, rows).float())
        thin_gradient = torch.cat(thin_gradients, dim=1)
        down_gradient = thin_gradient.t() @ x
        x_gradient = None
        if wide:
            x_gradient = (sum(wide[1:], wide[0]) + (thin_gradient @ _stack(down, x.dtype)).float()).to(x.dtype)
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
