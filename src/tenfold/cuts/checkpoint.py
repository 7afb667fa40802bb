"""Cut 4: keep some activations, recompute some, let some wait in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class Checkpoint(Cut):
    """Of `layers` blocks keep only the input, and run them again in the backward pass; what `offload` blocks keep waits
    in host memory.

    Saves: the activations of those blocks, of recomputed ones but for one hidden state each.
    Costs: one more forward pass of recomputed blocks: half again the FLOPs of a LoRA step, a third of a full one; of
    offloaded ones two copies over the link to the host, beside the computation as long as they are no longer than it.
    Evidence: exact; the planner keeps it off while everything fits, and then chooses the cheaper seconds for each byte.
    Paper: arXiv 1604.06174 (recomputation), arXiv 1602.08124 (vDNN: offloading with prefetch).

    Blocks that are both keep their input in host memory and nothing on the device. The feed-forward parts of recomputed
    blocks run in `mlp_tiles` tiles of tokens, so that what is widest in them exists for one tile at a time (arXiv
    2506.13996): for rows so long that one block is too much. They are run again no more often than without.
    """

    name: ClassVar[str] = "checkpoint"
    exact: ClassVar[bool] = True

    layers: int = 0
    offload: int = 0
    mlp_tiles: int = 1

    def price(self, job: Job) -> Job:
        """Fewer bytes of activations; more forward FLOPs, and copies. A CPU has no other memory to leave them in."""
        offloaded = min(self.offload, job.shape.layers - 1) if job.machine.vendor_kind == "cuda" else 0
        return job.keeping(min(self.layers, job.shape.layers), offloaded, self.mlp_tiles)

    def apply(self, rig: Rig) -> Rig:
        """Stand before each block's `forward`."""
        from tenfold.rig.checkpointing import checkpoint_blocks

        return checkpoint_blocks(rig, self)
