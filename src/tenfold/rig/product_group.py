"""Adapted linear layers that read the same input, computed as one product."""

from __future__ import annotations

from typing import Protocol

import torch

from tenfold.rig.products import AdaptedProduct, Operand


class Member(Protocol):
    """What a group needs of an adapted layer."""

    lora_A: torch.nn.Parameter  # noqa: N815  # the name that PEFT gives it
    lora_B: torch.nn.Parameter  # noqa: N815

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen bias."""
        ...


class ProductGroup:
    """The merged product of a few layers. The first one called computes it, the others take their share.

    Holds the frozen weights of all members under each other; the members keep their adapters, names and gradients.
    The model must call the members in their order on one and the same input, which `merge_products` has seen it do.
    """

    def __init__(
        self, members: tuple[Member, ...], operand: type[Operand], parts: tuple[torch.Tensor, ...], scale: float
    ) -> None:
        self.members = members
        self.operand = operand
        self.parts = parts
        self.scale = scale
        self.waiting: list[torch.Tensor] = []
        """Outputs that members have still to take, in their order."""

    def __call__(self, member: Member, x: torch.Tensor) -> torch.Tensor:
        """The output [..., N] of `member` for x [..., K]."""
        if member is self.members[0]:
            self.waiting = list(self._compute(x))
        output = self.waiting[0]
        self.waiting = self.waiting[1:]
        return output if member.bias is None else output + member.bias.to(output.dtype)

    def _compute(self, x: torch.Tensor) -> list[torch.Tensor]:
        down = [member.lora_A for member in self.members]
        up = [member.lora_B for member in self.members]
        outputs = AdaptedProduct.apply(
            x.flatten(0, -2), self.operand, len(self.parts), self.scale, *self.parts, *down, *up
        )
        return [output.unflatten(0, x.shape[:-1]) for output in outputs]  # type: ignore[union-attr]
