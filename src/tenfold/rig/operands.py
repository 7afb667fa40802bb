"""How frozen weights multiply: as they are, made dense for each pass, or in fp8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tenfold.rig.storage import Storage

FP8_LARGEST = 448.0
"""The largest float8_e4m3fn (arXiv 2209.05433, table 1)."""


class Operand(Protocol):
    """The frozen weights of layers that read one input, W [N, K] if they lay under each other. `parts` are the tensors
    that hold them; the operand itself holds none, so that one compilation serves all layers of a kind."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T [T, n] of each layer; `places` are its rows of W."""
        ...

    def input_gradient(self, dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] of one layer, whose weight is W[rows], to dy W[rows], [T, K]."""
        ...


@dataclass(frozen=True)
class Dense:
    """Weights as they are: one part, W in the dtype of x."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product."""
        y = x @ parts[0].t()
        return [y[:, rows] for rows in places]

    def input_gradient(self, dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]."""
        return dy @ parts[0][rows]


@dataclass(frozen=True)
class Stored:
    """Weights in few bits, made dense in the dtype of x for each pass. Parts: those of each layer in turn."""

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer."""
        return [x @ self._weight(parts, layer, x.dtype).t() for layer in range(len(places))]

    def input_gradient(self, dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]."""
        return dy @ self._weight(parts, layer, dy.dtype)

    def _weight(self, parts: Sequence[torch.Tensor], layer: int, dtype: torch.dtype) -> torch.Tensor:
        count = len(self.names)
        own = parts[layer * count : (layer + 1) * count]
        return self.storage.load(dict(zip(self.names, own, strict=True)), dtype)


@dataclass(frozen=True)
class Fp8:
    """Both sides in float8_e4m3fn with a float32 scale per row, sums in float32.

    Parts: W float8_e4m3fn and the scale [N] float32 of its rows. If there are more, they are the weights of each layer
    transposed, [K, n] contiguous; else that copy is made anew in each backward pass: the hardware wants both factors to
    be contiguous along the summed dimension.
    """

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product; x is rounded to fp8."""
        narrow, scale = fp8_rows(x)
        y = scaled_product(narrow, scale, parts[0], parts[1])
        return [y[:, rows] for rows in places]

    def input_gradient(self, dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]; W's row scales join dy before it is rounded to fp8."""
        turned = parts[2 + layer] if len(parts) > 2 else parts[0][rows].t().contiguous()
        return _fp8_input_gradient(dy, turned, parts[1][rows])


@dataclass(frozen=True)
class StoredFp8:
    """Weights in few bits, made fp8 for each pass and multiplied as `Fp8` does. Parts: those of each layer and, last,
    the scale [n] float32 of its rows."""

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer, the scale left out."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer; x is rounded once."""
        narrow, scale = fp8_rows(x)
        layers = (self._weight(parts, layer) for layer in range(len(places)))
        return [scaled_product(narrow, scale, weight, weight_scale) for weight, weight_scale in layers]

    def input_gradient(self, dy: torch.Tensor, parts: Sequence[torch.Tensor], layer: int, rows: slice) -> torch.Tensor:
        """dy [T, n] to dy W[rows], [T, K]."""
        weight, scale = self._weight(parts, layer)
        return _fp8_input_gradient(dy, weight.t().contiguous(), scale)

    def _weight(self, parts: Sequence[torch.Tensor], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(self.names) + 1
        *own, scale = parts[layer * count : (layer + 1) * count]
        wide = self.storage.load(dict(zip(self.names, own, strict=True)), torch.float32)
        return (wide / scale[:, None]).to(torch.float8_e4m3fn), scale


def fp8_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, K] as float8_e4m3fn and the float32 scale [T, 1] of each row; rows of zeros stay zeros."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp_min(1e-12) / FP8_LARGEST
    return (wide / scale).to(torch.float8_e4m3fn), scale


def _fp8_input_gradient(dy: torch.Tensor, turned: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """dy [T, n] times W [n, K], given as its fp8 numbers transposed, [K, n], and the scale [n] of its rows."""
    narrow, dy_scale = fp8_rows(dy.float() * scale)
    ones = torch.ones(turned.shape[0], dtype=torch.float32, device=dy.device)
    return scaled_product(narrow, dy_scale, turned, ones)


def scaled_product(x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(x_scale x) (scale weight)^T for fp8 x [T, K] with x_scale [T, 1] and fp8 weight [N, K] with scale [N].

    bfloat16 [T, N] from the fp8 units of a GPU; elsewhere float32, the same numbers multiplied the long way.
    """
    if x.is_cuda:
        return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]  # it has no public name
            x, weight.t(), scale_a=x_scale, scale_b=scale[None], out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return (x.float() * x_scale) @ (weight.float() * scale[:, None]).t()
