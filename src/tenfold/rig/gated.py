"""A gated MLP with adapters on its three projections, as one autograd function.

With x [T, K], frozen W_g, W_u [F, K] and W_d [K, F], and an adapter A, B on each, scaled by s:

    forward    y = (h + its adapter) W_d^T,  h = act(g) u,  g = x W_g^T + s (x A_g^T) B_g^T, u likewise
    backward   dh = dy W_d + s (dy B_d) A_d,  du = dh act(g),  dg = dh u act'(g)
               dx = [dg du] [W_g; W_u] + s [dg B_g, du B_u] [A_g; A_u], and dA, dB as rig/products has them

What is kept is x, the frozen half of g and u, and the thin products: h, and what the adapters add, are made again where
they are used (rig/gated_passes). So the adapters cost no pass of their own over anything F wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers.activations import GELUTanh, SiLUActivation

from tenfold.rig.gated_passes import Activation, gated_backward, gated_forward, round_and_project
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.operands import Fp8, Operand, Rounded, StoredFp8
from tenfold.rig.probe import outputs_differ, probe_hidden
from tenfold.rig.product_group import ProductGroup
from tenfold.rig.rig import Rig

ACTIVATIONS: tuple[tuple[tuple[type[torch.nn.Module], ...], Activation], ...] = (
    ((torch.nn.SiLU, SiLUActivation), "silu"),
    ((GELUTanh,), "gelu_tanh"),
)
"""Modules that transformers calls act_fn, and what they compute."""


ROUNDING = (Fp8, StoredFp8)
"""Operands that take what they multiply in fp8."""


@dataclass(frozen=True)
class GatedOperands:
    """How the frozen weights multiply, and all that is not a tensor: one compilation serves all layers that agree."""

    gate_up: Operand
    gate_up_parts: int
    down: Operand
    scale: float
    activation: str


class GatedProduct(torch.autograd.Function):
    """The formulas at the head of this file."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: GatedOperands, *tensors: torch.Tensor) -> torch.Tensor:
        """`tensors`: A and B of gate, up and down in turn, then the parts of gate and up, then those of down."""
        (gate_a, gate_b, up_a, up_b, down_a, down_b), gate_up_parts, down_parts = _split(tensors, how)
        width, dtype = gate_b.shape[0], x.dtype
        thin = x @ torch.cat([gate_a, up_a]).to(dtype).t()
        gate, up = how.gate_up.products(x, gate_up_parts, (slice(0, width), slice(width, 2 * width)))
        b = [_scaled(gate_b, how.scale, dtype), _scaled(up_b, how.scale, dtype)]
        h, peaks = gated_forward(gate, up, thin, *b, how.activation)
        whole = (slice(0, down_b.shape[0]),)
        if isinstance(how.down, ROUNDING):
            narrow, row_scale, thin_h = round_and_project(h, peaks, None, down_a.to(dtype))
            (y,) = how.down.products_of((narrow, row_scale), down_parts, whole)
        else:
            thin_h = h @ down_a.to(dtype).t()
            (y,) = how.down.products(h, down_parts, whole)
        ctx.save_for_backward(x, gate, up, thin, thin_h, *tensors)
        ctx.how = how
        return (y.float() + (thin_h @ _scaled(down_b, how.scale, dtype).t()).float()).to(dtype)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        how: GatedOperands = ctx.how
        x, gate, up, thin, thin_h, *tensors = ctx.saved_tensors
        (gate_a, gate_b, up_a, up_b, down_a, down_b), gate_up_parts, down_parts = _split(tensors, how)
        dtype, scale, rank = x.dtype, how.scale, gate_b.shape[1]
        down_b_gradient = (dy.t() @ thin_h).to(down_b.dtype) * scale
        thin_dh = dy @ _scaled(down_b, scale, dtype)
        dh = how.down.input_gradient([dy], down_parts)
        b = [_scaled(gate_b, scale, dtype), _scaled(up_b, scale, dtype)]
        row_scales = how.gate_up.row_scales(gate_up_parts) if isinstance(how.gate_up, ROUNDING) else None
        scales = row_scales and (row_scales[0] if len(row_scales) == 1 else torch.cat(row_scales))
        both, peaks, products = gated_backward(
            dh.to(dtype), gate, up, thin, thin_dh, *b, down_a.to(dtype), scales, how.activation
        )
        halves = both.chunk(2, dim=1)
        rounded: list[Rounded] = []
        if row_scales is None:
            thin_gradient = torch.cat([half @ wide for half, wide in zip(halves, b, strict=True)], 1)
        elif how.gate_up.joint:
            beside = torch.cat([F.pad(b[0].t(), (0, len(b[1]))), F.pad(b[1].t(), (len(b[0]), 0))])
            *both_rounded, thin_gradient = round_and_project(both, peaks, row_scales[0], beside)
            rounded = [(both_rounded[0], both_rounded[1])]
        else:
            triples = [
                round_and_project(half, peaks, own, wide.t())
                for half, own, wide in zip(halves, row_scales, b, strict=True)
            ]
            rounded = [(narrow, row_scale) for narrow, row_scale, _ in triples]
            thin_gradient = torch.cat([thin_half for *_, thin_half in triples], 1)
        a_gradient = (thin_gradient.t() @ x).to(gate_a.dtype)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            if isinstance(how.gate_up, ROUNDING):
                wide = how.gate_up.input_gradient_of(rounded, gate_up_parts)
            else:
                wide = how.gate_up.input_gradient([both] if how.gate_up.joint else halves, gate_up_parts)
            low = thin_gradient @ torch.cat([gate_a, up_a]).to(dtype)
            x_gradient = (wide.float() + low.float()).to(dtype)
        of_down, of_gate, of_up = products.unbind(0)
        adapters = (
            a_gradient[:rank], of_gate.t().to(gate_b.dtype) * scale,
            a_gradient[rank:], of_up.t().to(up_b.dtype) * scale,
            of_down.to(down_a.dtype), down_b_gradient,
        )  # fmt: skip
        return (x_gradient, None, *adapters, *[None] * (len(tensors) - len(adapters)))


class GatedMlp(torch.nn.Module):
    """What takes the place of an MLP whose three projections are adapted and merged; their names stay the same."""

    def __init__(self, mlp: torch.nn.Module, activation: Activation) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (mlp.get_submodule(name) for name in PROJECTIONS)
        gate_up, down = (_group(mlp, name) for name in ("gate_proj", "down_proj"))
        self.parts = (*gate_up.parts, *down.parts)
        self.how = GatedOperands(gate_up.operand, len(gate_up.parts), down.operand, gate_up.scale, activation)
        self.train(mlp.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] to [..., K]."""
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
        layers: Sequence[Any] = (self.gate_proj, self.up_proj, self.down_proj)
        adapters = [weight for layer in layers for weight in (layer.lora_A, layer.lora_B)]
        y = GatedProduct.apply(x.flatten(0, -2), self.how, *adapters, *self.parts)
        return y.unflatten(0, x.shape[:-1])  # type: ignore[union-attr]


PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""What the families with gated MLPs of three linear layers call them."""


def fuse_gated(rig: Rig) -> int:
    """Put a GatedMlp in the place of every MLP that it can stand for; how many.

    Those whose three projections are adapted with one rank and scale and without bias, the first two merged into one
    product, and whose activation is known. If the model's hidden states differ then, its MLPs are put back: 0.
    """
    model = rig.model
    expected = probe_hidden(model)
    replaced: list[tuple[str, torch.nn.Module]] = []
    for name, module in list(model.named_modules()):
        activation = _activation(module)
        if activation is not None and _fusible(module):
            _put(model, name, GatedMlp(module, activation))
            replaced.append((name, module))
    computed_in = torch.float32 if rig.frozen_compute == "bf16" else torch.bfloat16
    if outputs_differ([expected], [probe_hidden(model)], computed_in):
        for name, module in replaced:
            _put(model, name, module)
        return 0
    return len(replaced)


def _put(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _activation(module: torch.nn.Module) -> Activation | None:
    act = getattr(module, "act_fn", None)
    return next((name for kinds, name in ACTIVATIONS if isinstance(act, kinds)), None)


def _fusible(mlp: torch.nn.Module) -> bool:
    layers = [getattr(mlp, name, None) for name in PROJECTIONS]
    if not all(isinstance(layer, AdaptedLinear) and layer.group and layer.bias is None for layer in layers):
        return False
    gate, up, down = cast("list[AdaptedLinear]", layers)
    same = gate.scale == down.scale and gate.lora_A.shape[0] == down.lora_A.shape[0]
    merged = [_group(mlp, name).members for name in ("gate_proj", "down_proj")]
    return same and merged == [(gate, up), (down,)]


def _group(mlp: torch.nn.Module, name: str) -> ProductGroup:
    group: ProductGroup = getattr(mlp, name).group
    return group


def _scaled(b: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    return (b * scale).to(dtype)


def _split(
    tensors: Sequence[torch.Tensor], how: GatedOperands
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    parts = 6 + how.gate_up_parts
    return tensors[:6], tensors[6:parts], tensors[parts:]
