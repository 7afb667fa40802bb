"""A frozen linear layer whose weight is kept in few bits and is dense only while it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers.pytorch_utils import Conv1D

from tenfold.rig.storage import Storage


class StoredLinear(torch.nn.Module):
    """y = x W^T + b with W [out, in] in `storage`, whose parts are this module's buffers. Neither W nor b learns."""

    def __init__(
        self,
        storage: Storage,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        fan_in_fan_out: bool = False,
    ) -> None:
        """`weight` [out, in]; on the meta device it becomes empty buffers."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.storage = storage
        self.fan_in_fan_out = fan_in_fan_out
        """It took the place of a Conv1D, which keeps its weight transposed."""
        self.keep(weight)
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach(), requires_grad=False)

    @classmethod
    def of(cls, linear: torch.nn.Linear | Conv1D, storage: Storage) -> StoredLinear:
        """What takes the place of a linear layer, on any device, meta included."""
        transposed = isinstance(linear, Conv1D)
        weight = linear.weight.detach()
        return cls(storage, weight.T if transposed else weight, linear.bias, fan_in_fan_out=transposed)

    @torch.no_grad()
    def keep(self, weight: torch.Tensor) -> None:
        """Store a weight [out, in], and follow it to its device and number format."""
        self.dtype = weight.dtype
        for name, part in self.storage.store(weight).items():
            self.register_buffer(name, part)
        self.part_names = tuple(self._buffers)

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """What `storage` made of the weight."""
        return {name: self.get_buffer(name) for name in self.part_names}

    @property
    def weight(self) -> torch.Tensor:
        """[out, in], dense: for code that looks at a linear layer's dtype or shape, and for merging."""
        return self.storage.load(self.parts, self.dtype)

    def dense(self) -> torch.nn.Linear | Conv1D:
        """The plain layer again, of the kind that this one took the place of, with the weight as it now is."""
        weight = self.weight
        if self.fan_in_fan_out:
            plain = Conv1D(self.out_features, 0)
            weight = weight.T.contiguous()
        else:
            plain = torch.nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        cast("Any", plain).bias = self.bias
        return plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        if not (x.requires_grad and torch.is_grad_enabled()):  # nothing to come back for: the first block, evaluation
            return F.linear(x.to(dtype), self.storage.load(self.parts, dtype), bias)
        return _Product.apply(x.to(dtype), bias, self.storage, self.part_names, *self.parts.values())

    def extra_repr(self) -> str:
        """Sizes and format."""
        return f"in_features={self.in_features}, out_features={self.out_features}, storage={self.storage.name}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> StoredLinear:
        """Follow the model to another device; its number format is that of `weight`, not that of the parts."""
        before = self.parts
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=next(iter(before.values())).device)).dtype
        for name, part in before.items():
            after = self.get_buffer(name)
            if after.dtype != part.dtype:
                self._buffers[name] = part.to(after.device)
        return self


def stored_weights(model: torch.nn.Module) -> int:
    """How many weights of a model are stored, and so not among its parameters."""
    return sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, StoredLinear))


class _Product(torch.autograd.Function):
    """x W^T + b; keeps the stored parts for the backward pass, never the dense weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        storage: Storage,
        names: tuple[str, ...],
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        ctx.storage, ctx.names = storage, names
        ctx.save_for_backward(*parts)
        weight = storage.load(dict(zip(names, parts, strict=True)), x.dtype)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        parts = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        weight = ctx.storage.load(parts, gradient.dtype)
        return (gradient @ weight, *[None] * (3 + len(parts)))
