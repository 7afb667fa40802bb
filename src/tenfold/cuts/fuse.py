"""Cut 5: a loss that never holds all logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    import torch

    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class Fuse(Cut):
    """Compute head and cross-entropy over `loss_rows` rows at a time, gradient included; skip rows without loss.

    With `compile`, on a GPU: layers that read one input are one product, each layer is one compiled graph, and steady
    micro-batches are recorded as CUDA graphs.

    Saves: the logits (4 bytes x vocabulary per row, several times over) and the head's FLOPs on masked rows; compiled,
    most passes over memory between the products, what they keep, and the host's time.
    Costs: nothing measurable above a few hundred rows a chunk; compiled, some seconds before the first step.
    Evidence: exact; bench/results/.
    Paper: arXiv 2410.10989 (Liger), arXiv 2411.09009 (Cut Cross-Entropy) for the idea.
    """

    name: ClassVar[str] = "fuse"
    exact: ClassVar[bool] = True

    loss_rows: int = 2048
    compile: bool = False
    """Also merge products, compile layers, and on a GPU record passes."""

    def price(self, job: Job) -> Job:
        """A chunk of logits instead of all, and no head on rows without loss."""
        if job.task == "classify" or job.shape.capped_logits:
            return job
        compiled = self.compile and job.machine.vendor_kind == "cuda" and job.machine.supports_bf16
        if self.compile and not compiled:
            return job  # what it asks for is not to be had there
        return replace(job, loss_rows=self.loss_rows, compiled=compiled)

    def begin(self, device: torch.device) -> None:
        """Start the compiler, whose processes take some seconds to be ready."""
        if self.compile and device.type == "cuda":
            from tenfold.rig.compiling import start_compiler

            start_compiler()

    def apply(self, rig: Rig) -> Rig:
        """Replace the rig's loss by the chunked one; merge and compile its layers."""
        from tenfold.rig.chunked_loss import chunk_loss

        rig = chunk_loss(rig, self.loss_rows, narrow=not self.compile)  # its hooks would be a second graph to compile
        if not self.compile:
            return rig
        from tenfold.rig.compiling import compile_rig

        return compile_rig(rig)
