"""Cut 5: a loss that never holds all logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class Fuse(Cut):
    """Compute head and cross-entropy over `loss_rows` rows at a time, gradient included; skip rows without loss.

    Saves: the logits (4 bytes x vocabulary per row, several times over) and the head's FLOPs on masked rows.
    Costs: nothing measurable above a few hundred rows a chunk.
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
        return replace(job, loss_rows=self.loss_rows)

    def apply(self, rig: Rig) -> Rig:
        """Replace the rig's loss by the chunked one; merge and compile its layers."""
        from tenfold.rig.chunked_loss import chunk_loss
        from tenfold.rig.compiling import compile_rig

        rig = chunk_loss(rig, self.loss_rows)
        return compile_rig(rig) if self.compile else rig
