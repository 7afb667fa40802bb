"""How frozen weights multiply: as they are, made dense for each pass, or in fp8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from tenfold.rig.storage import Storage

FP8_LARGEST = 448.0
"""The largest float8_e4m3fn (arXiv 2209.05433, table 1)."""

Rounded = tuple[torch.Tensor, torch.Tensor]
"""A matrix in fp8: float8_e4m3fn [T, K] and the float32 scale [T, 1] of its rows."""


class Operand(Protocol):
    """The frozen weights of layers that read one input, W [N, K] if they lay under each other. `parts` are the tensors
    that hold them; the operand itself holds none, so that one compilation serves all layers of a kind."""

    joint: ClassVar[bool]
    """All layers are one product; else each is its own, so that one weight at a time is dense."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T [T, n] of each layer; `places` are its rows of W."""
        ...

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy [T, n] of each layer, or one [T, N] of all side by side where `joint`, to dy W, [T, K]."""
        ...


@dataclass(frozen=True)
class Dense:
    """Weights as they are: one part, W in the dtype of x."""

    joint: ClassVar[bool] = True

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product."""
        y = x @ parts[0].t()
        return [y[:, rows] for rows in places]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy to dy W, [T, K]."""
        return _beside(dys) @ parts[0]


@dataclass(frozen=True)
class Stored:
    """Weights in few bits, made dense in the dtype of x for each pass. Parts: those of each layer in turn."""

    joint: ClassVar[bool] = False

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer."""
        return [x @ weight.t() for weight in self._weights(parts, x.dtype)]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy to dy W, [T, K] float32."""
        weights = self._weights(parts, dys[0].dtype)
        return _sum([dy @ weight for dy, weight in zip(dys, weights, strict=True)])

    def _weights(self, parts: Sequence[torch.Tensor], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        for own in _by_layer(parts, len(self.names)):
            yield self.storage.load(dict(zip(self.names, own, strict=True)), dtype)


class Rounding(Protocol):
    """An operand that multiplies in fp8: both sides in float8_e4m3fn with a float32 scale per row, sums in float32.

    W's row scales join dy before dy is rounded, because they run along the dimension that is summed.
    """

    joint: ClassVar[bool]
    """As `Operand.joint`."""

    def products_of(self, x: Rounded, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """`Operand.products` of an x that is rounded already."""
        ...

    def input_gradient_of(self, dys: Sequence[Rounded], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """`Operand.input_gradient` of dys that are multiplied by W's row scales and rounded already."""
        ...

    def row_scales(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Those of W, float32: [N], or [n] of each layer where not `joint`."""
        ...


@dataclass(frozen=True)
class Fp8:
    """Weights that are kept in fp8. Parts: W [N, K] and its row scales [N]; a third is W transposed, [K, N]
    contiguous, else that copy is made anew in each backward pass: the hardware wants both factors to be contiguous
    along the summed dimension."""

    joint: ClassVar[bool] = True

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer, by one product; x is rounded to fp8."""
        return self.products_of(fp8_rows(x), parts, places)

    def products_of(self, x: Rounded, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """As `Rounding.products_of`."""
        y = scaled_product(*x, parts[0], parts[1])
        return [y[:, rows] for rows in places]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy to dy W, [T, K]."""
        return self.input_gradient_of([fp8_rows(_beside(dys).float() * parts[1])], parts)

    def input_gradient_of(self, dys: Sequence[Rounded], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `Rounding.input_gradient_of`, of one dy."""
        return _turned_product(dys[0], parts[2] if len(parts) > 2 else parts[0].t().contiguous())

    def row_scales(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The second part."""
        return [parts[1]]


@dataclass(frozen=True)
class StoredFp8:
    """Weights in few bits, made fp8 for each pass. Parts: those of each layer and, last, the scale [n] of its rows."""

    joint: ClassVar[bool] = False

    storage: Storage
    names: tuple[str, ...]
    """What the storage calls the parts of one layer, the scale left out."""

    def products(self, x: torch.Tensor, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """x [T, K] to x W[rows]^T of each layer; x is rounded once."""
        return self.products_of(fp8_rows(x), parts, places)

    def products_of(self, x: Rounded, parts: Sequence[torch.Tensor], places: Sequence[slice]) -> list[torch.Tensor]:
        """As `Rounding.products_of`."""
        return [scaled_product(*x, codes, scale) for codes, scale in self._codes(parts)]

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """dy to dy W, [T, K] float32."""
        scaled = zip(dys, self.row_scales(parts), strict=True)
        return self.input_gradient_of([fp8_rows(dy.float() * scale) for dy, scale in scaled], parts)

    def input_gradient_of(self, dys: Sequence[Rounded], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `Rounding.input_gradient_of`."""
        layers = zip(dys, self._codes(parts), strict=True)
        return _sum([_turned_product(dy, codes.t().contiguous()) for dy, (codes, _) in layers])

    def row_scales(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The last part of each layer."""
        return [own[-1] for own in _by_layer(parts, len(self.names) + 1)]

    def _codes(self, parts: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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


def _turned_product(dy: Rounded, turned: torch.Tensor) -> torch.Tensor:
    """A rounded dy [T, n] times W [n, K], given as its fp8 numbers transposed, [K, n]; its row scales are in dy."""
    ones = torch.ones(turned.shape[0], dtype=torch.float32, device=turned.device)
    return scaled_product(*dy, turned, ones)


def fp8_rows(x: torch.Tensor) -> Rounded:
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
