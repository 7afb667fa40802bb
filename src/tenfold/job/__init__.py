"""The run on paper: shape x workload x machine, with the dense formulas that the cuts change."""

from tenfold.job.activations import footprint, kept_bytes
from tenfold.job.bill import Bill, bill
from tenfold.job.checking import checking_work
from tenfold.job.flops import flops_by_part
from tenfold.job.job import Job
from tenfold.job.memory import KINDS, Moment, bytes_by_kind, moments, peak_by_blocks, peak_bytes, peak_moment
from tenfold.job.recording import of_one_length
from tenfold.job.seconds import process_seconds, seconds_by_part, seconds_on, work_seconds
from tenfold.job.work import Work, evaluation_work, training_work

__all__ = [
    "KINDS",
    "Bill",
    "Job",
    "Moment",
    "Work",
    "bill",
    "bytes_by_kind",
    "checking_work",
    "evaluation_work",
    "flops_by_part",
    "footprint",
    "kept_bytes",
    "moments",
    "of_one_length",
    "peak_by_blocks",
    "peak_bytes",
    "peak_moment",
    "process_seconds",
    "seconds_by_part",
    "seconds_on",
    "training_work",
    "work_seconds",
]
