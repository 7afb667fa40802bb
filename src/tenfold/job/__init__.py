"""The run on paper: shape x workload x machine, with the dense formulas that the cuts change."""

from tenfold.job.activations import activation_bytes_per_token, mask_bytes_per_token
from tenfold.job.flops import flops_by_part
from tenfold.job.job import Job
from tenfold.job.memory import bytes_by_kind, peak_bytes
from tenfold.job.seconds import seconds_by_part, usd_of

__all__ = [
    "Job",
    "activation_bytes_per_token",
    "bytes_by_kind",
    "flops_by_part",
    "mask_bytes_per_token",
    "peak_bytes",
    "seconds_by_part",
    "usd_of",
]
