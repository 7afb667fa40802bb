"""Cut 6: keep frozen weights in four or eight bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, ClassVar, Literal

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.machine import Machine
    from tenfold.rig.rig import Rig

StorageName = Literal["fp8", "int8", "nf4"]

NF4_BLOCK = 64
"""Weights along a row that share an absolute maximum: arXiv 2305.14314, section 3."""

NF4_GROUP = 256
"""Absolute maxima that share a scale once they are quantized themselves: ibid., "double quantization"."""


@dataclass(frozen=True)
class Quantize(Cut):
    """Store the frozen weights of the blocks' linear layers in 8 bits (fp8, int8) or 4.127 (nf4, double quantization).

    Saves: half (8 bits) to three quarters (nf4) of those weights' memory beside bfloat16. With compute "fp8" also half
    the time of their products, where the hardware has it.
    Costs: a dense copy of one layer at a time, made again in every pass; quality, by an interval that is measured.
    Evidence: evidence/quality.json, on one small model: the planner does not choose it by itself; a recipe does.
    Paper: arXiv 2305.14314 (QLoRA: nf4), arXiv 2208.07339 (int8), arXiv 2209.05433 (fp8).

    Only adapters learn on top of it: lora comes after it. Head, embeddings, norms and attention stay as they are.
    """

    name: ClassVar[str] = "quantize"
    exact: ClassVar[bool] = False
    before_weights: ClassVar[bool] = True

    storage: StorageName = "nf4"
    compute: Literal["bf16", "fp8"] = "bf16"
    keep: bool = False
    """Where fuse compiles: keep beside the stored weights what their products take, the same numbers in bf16 or fp8."""

    def price(self, job: Job) -> Job:
        """Fewer bytes of frozen weights, but not without lora, which freezes them, nor without the hardware for fp8."""
        if not job.pretrained or (self.compute == "fp8" and not has_fp8_products(job.machine)):
            return job
        frozen = job.shape.block_parameters - job.full_block_parameters
        return replace(
            job,
            stored_as=self.storage,
            stored_bytes=stored_bytes(self.storage, job) * frozen / job.shape.block_parameters,
            fp8_products=self.compute == "fp8",
            ready_bytes=self._ready_bits() / 8 * frozen if self.keep else 0.0,
        )

    def _ready_bits(self) -> int:
        """Of a weight kept ready: bfloat16; or in fp8 both as it is and turned, the former shared with fp8 storage."""
        if self.compute == "bf16":
            return 16
        return 8 if self.storage == "fp8" else 16

    def apply(self, rig: Rig) -> Rig:
        """Swap each linear layer of the blocks for one that stores its weight so."""
        from tenfold.rig.quantizing import check_products, quantize_linears

        check_products(rig.device, self.compute)
        return replace(quantize_linears(rig, self.storage), frozen_compute=self.compute, frozen_kept=self.keep)


def bits_per_weight(storage: StorageName, in_features: int) -> float:
    """Bits that one weight of a row of `in_features` takes, its share of the scales included."""
    if storage == "nf4":
        return 4 + (8 + 32 / NF4_GROUP) * ceil(in_features / NF4_BLOCK) / in_features
    return 8 + 32 / in_features


def stored_bytes(storage: StorageName, job: Job) -> float:
    """Bytes of all blocks' linear weights."""
    linears = job.shape.block_linears
    bits = sum(x.in_features * x.out_features * bits_per_weight(storage, x.in_features) for x in linears)
    return job.shape.layers * bits / 8


def has_fp8_products(machine: Machine) -> bool:
    """Whether the machine multiplies fp8 matrices at a rate of its own."""
    return "float8" in machine.flops
