"""Cut 12: no padding; rows end to end, each seeing only itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class Pack(Cut):
    """Lay the rows of an optimizer step end to end, up to `tokens` per micro-batch, positions restarted in each row.

    Saves: every padded token in every token-wise layer (half of all tokens on short, mixed rows).
    Costs: a gather and a scatter around attention.
    Evidence: exact; bench/results/ has tokens per second with and without.
    Paper: arXiv 2107.02027.
    """

    name: ClassVar[str] = "pack"
    exact: ClassVar[bool] = True

    tokens: int = 8192

    def price(self, job: Job) -> Job:
        """Useful tokens only."""
        uniform = job.workload.longest * job.workload.rows == job.workload.tokens
        if uniform and job.machine.vendor_kind == "cpu":
            return job  # no padding to save; on a GPU steady shapes are what a pass is recorded in
        if job.shape.capped_attention:
            return job
        return replace(job, packed_tokens=self.tokens)

    def apply(self, rig: Rig) -> Rig:
        """Isolate the rows in attention and lay batches out without padding."""
        from tenfold.rig.packing import pack_rig

        return pack_rig(rig, self.tokens)
