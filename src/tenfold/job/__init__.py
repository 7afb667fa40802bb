"""The run on paper: shape x workload x machine, with the dense formulas that the cuts change."""

from tenfold.job.activations import block_bytes, kept_bytes
from tenfold.job.flops import flops_by_part
from tenfold.job.job import Job
from tenfold.job.memory import bytes_by_kind, peak_by_blocks, peak_bytes
from tenfold.job.seconds import seconds_by_part, usd_of

__all__ = [
    "Job",
    "block_bytes",
    "bytes_by_kind",
    "flops_by_part",
    "kept_bytes",
    "peak_by_blocks",
    "peak_bytes",
    "seconds_by_part",
    "usd_of",
]
