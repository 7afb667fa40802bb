"""How frozen weights multiply: as they are, made dense for each pass, or in fp8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
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

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy [T, n] of each layer to the sum of all dy W[rows], [T, K]."""
        ...


@dataclass(frozen=True)
class Dense:
    """Weights as they are: one part, W in the dtype of x."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product."""
        y = x @ parts[0].t()
        return [y[:, rows] for rows in places]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy of each layer to their dy W, [T, K], by one product."""
        return _beside(dys) @ parts[0]


@dataclass(frozen=True)
class Stored:
    """Weights in few bits, made dense in the dtype of x for each pass, one layer at a time. Parts: those of each layer
    in turn."""

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer."""
        return [x @ weight.t() for weight in self._weights(parts, x.dtype)]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy of each layer to their dy W, [T, K] float32."""
        weights = self._weights(parts, dys[0].dtype)
        return _sum([dy @ weight for dy, weight in zip(dys, weights, strict=True)])

    def _weights(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        for own in _by_layer(parts, len(self.names)):
            yield self.storage.load(dict(zip(self.names, own, strict=True)), dtype)


@dataclass(frozen=True)
class Fp8:
    """Both sides in float8_e4m3fn with a float32 scale per row, sums in float32.

    Parts: W float8_e4m3fn [N, K] and its row scales [N] float32. A third is W transposed, [K, N] contiguous, else that
    copy is made anew in each backward pass: the hardware wants both factors to be contiguous along what is summed.
    """

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product; x is rounded to fp8."""
        y = scaled_product(*fp8_rows(x), parts[0], parts[1])
        return [y[:, rows] for rows in places]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy of each layer to their dy W, [T, K], by one product."""
        return _fp8_input_gradient(dys, parts[2] if len(parts) > 2 else parts[0].t().contiguous(), parts[1])


@dataclass(frozen=True)
class StoredFp8:
    """Weights in few bits, made fp8 for each pass, one layer at a time, and multiplied as `Fp8` does. Parts: those of
    each layer and, last, the scale [n] float32 of its rows."""

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer, the scale left out."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer; x is rounded once."""
        rounded = fp8_rows(x)
        return [scaled_product(*rounded, codes, scale) for codes, scale in self._weights(parts)]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy of each layer to their dy W, [T, K] float32."""
        layers = zip(dys, self._weights(parts), strict=True)
        return _sum([_fp8_input_gradient([dy], codes.t().contiguous(), scale) for dy, (codes, scale) in layers])

    def _weights(self, parts: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for *own, scale in _by_layer(parts, len(self.names) + 1):
            wide = self.storage.load(dict(zip(self.names, own, strict=True)), torch.float32)
            yield (wide / scale[:, None]).to(torch.float8_e4m3fn), scale


def _by_layer(parts: Sequence[torch.Tensor], count: int) -> list[Sequence[torch.Tensor]]:
    """The `count` parts of each layer."""
    return [parts[start : start + count] for start in range(0, len(parts), count)]


def _beside(dys: Sequence[torch.Tensor]) -> torch.Tensor:
    return dys[0] if len(dys) == 1 else torch.cat(list(dys), dim=1)


def _sum(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """In float32."""
    wide = [value.float() for value in values]
    return sum(wide[1:], wide[0])


def _fp8_input_gradient(dys: Sequence[torch.Tensor], turned: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """dy [T, n] of each layer, side by side, times W [N, K], given as its fp8 numbers transposed, [K, N], and the scale
    [N] of its rows, which join dy before it is rounded to fp8, because they run along what is summed."""
    ones = torch.ones(turned.shape[0], dtype=torch.float32, device=turned.device)
    widths = [dy.shape[1] for dy in dys]
    if len(set(widths)) > 1:  # those of one width are rounded in one pass, each in its place; others are laid out first
        dys, widths = [_beside(dys)], [sum(widths)]
    wide = [dy.float() * own for dy, own in zip(dys, scale.split(widths), strict=True)]
    return scaled_product(*fp8_rows(*wide), turned, ones)


def fp8_rows(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts [T, k], side by side, as float8_e4m3fn, and the float32 scale [T, 1] of each row; rows of zeros stay so."""
    wide = [part.float() for part in parts]
    largest = reduce(torch.maximum, [part.abs().amax(-1, keepdim=True) for part in wide])
    largest = largest.clamp_min(1e-12)
    narrower = FP8_LARGEST / largest  # a product for each number, not a division
    return _beside([(part * narrower).to(torch.float8_e4m3fn) for part in wide]), largest / FP8_LARGEST


def scaled_product(x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(x_scale x) (scale weight)^T for fp8 x [T, K] with x_scale [T, 1] and fp8 weight [N, K] with scale [N].

    bfloat16 [T, N] from the fp8 units of a GPU; elsewhere float32, the same numbers multiplied the long way.
    """
    if x.is_cuda:
        return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]  # it has no public name
            x, weight.t(), scale_a=x_scale, scale_b=scale[None], out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return (x.float() * x_scale) @ (weight.float() * scale[:, None]).t()
