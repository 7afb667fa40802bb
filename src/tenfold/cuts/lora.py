"""Cut 2: freeze the base, learn low-rank adapters."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig
    from tenfold.shape import LinearShape

MODULE_NAMES = {
    "q": {"q_proj", "query", "q_lin", "q"},
    "k": {"k_proj", "key", "k_lin", "k"},
    "v": {"v_proj", "value", "v_lin", "v"},
    "qkv": {"qkv_proj", "Wqkv", "c_attn", "query_key_value"},
    "o": {"o_proj", "out_lin", "out_proj", "Wo", "c_proj", "dense", "o"},
    "gate": {"gate_proj", "w1"},
    "up": {"up_proj", "c_fc", "lin1", "fc1", "dense", "w3"},
    "gate_up": {"gate_up_proj", "Wi"},
    "down": {"down_proj", "c_proj", "lin2", "fc2", "Wo", "dense", "w2"},
}
"""What families call a block's linear layers in their modules: all there is to go by where the family is not known."""


def names_layer(target: str, linear: LinearShape, layers: int) -> bool:
    """Whether `target` is the name of this linear layer of one of `layers` blocks, or the end of its name."""
    if not linear.module:
        return target.rsplit(".", 1)[-1] in MODULE_NAMES[linear.name]
    if f".{linear.module}".endswith(f".{target}"):
        return True
    block = re.search(rf"(?:^|\.)(\d+)\.{re.escape(linear.module)}$", target, re.ASCII)
    return block is not None and int(block[1]) < layers


@dataclass(frozen=True)
class LoRA(Cut):
    """Learn two thin matrices per linear layer, y = Wx + (alpha / rank) B A x, and freeze W.

    Saves: weight gradients (a third of the FLOPs), gradients and Adam state of the frozen weights (12 bytes each).
    Costs: two thin matmuls per layer; quality, by an interval that is measured.
    Evidence: evidence/quality.json.
    Paper: arXiv 2106.09685; the scale alpha / sqrt(rank) of `rslora`: arXiv 2312.03732.

    `targets` is "all-linear" (every linear layer but the output head) or names of modules. The task head, and
    whatever the checkpoint did not hold, trains in full.
    """

    name: ClassVar[str] = "lora"
    exact: ClassVar[bool] = False

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    rslora: bool = False

    @property
    def scale(self) -> float:
        """What the product B A x is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def price(self, job: Job) -> Job:
        """Adapters instead of all weights carry gradients and optimizer state."""
        adapted = [linear for linear in job.shape.block_linears if self._targets(linear, job.shape.layers)]
        if not adapted or not job.pretrained:
            return job
        widths = sum(linear.in_features + linear.out_features for linear in adapted)
        return replace(
            job,
            adapter_rank=self.rank,
            adapter_dropout=self.dropout,
            adapter_parameters=(job.shape.layers - job.grown_layers) * self.rank * widths,
            adapted=tuple(linear.name for linear in adapted),
        )

    def _targets(self, linear: LinearShape, layers: int) -> bool:
        if isinstance(self.targets, str):
            return True
        return any(names_layer(target, linear, layers) for target in self.targets)

    def apply(self, rig: Rig) -> Rig:
        """Swap each target linear for one with an adapter; freeze the rest."""
        from tenfold.rig.linear import adapt_linears

        return adapt_linears(rig, self)
