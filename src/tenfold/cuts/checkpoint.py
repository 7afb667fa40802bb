"""Cut 4: keep some activations, recompute the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class Checkpoint(Cut):
    """Of `layers` blocks keep only the input, and run them again in the backward pass.

    Saves: the activations of those blocks but for one hidden state each.
    Costs: one more forward pass of them: half again the FLOPs of a LoRA step, a third of a full one.
    Evidence: exact; the planner keeps it off while everything fits.
    Paper: arXiv 1604.06174.

    The last blocks of the model are kept and the first are recomputed: a kept block frees its activations first.
    """

    name: ClassVar[str] = "checkpoint"
    exact: ClassVar[bool] = True

    layers: int

    def price(self, job: Job) -> Job:
        """Fewer bytes of activations, more forward FLOPs."""
        return replace(job, recomputed_layers=min(self.layers, job.shape.layers))

    def apply(self, rig: Rig) -> Rig:
        """Turn recomputation on in the first `layers` blocks."""
        from tenfold.rig.checkpointing import checkpoint_blocks

        return checkpoint_blocks(rig, self.layers)
