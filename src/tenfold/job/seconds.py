"""Seconds by part of everything that is billed, and dollars."""

from __future__ import annotations

from tenfold.job.activations import activation_bytes_per_token
from tenfold.job.flops import evaluation_flops, flops_by_part
from tenfold.job.job import Job
from tenfold.machine import evidence

OPTIMIZER_BYTES_PER_PARAMETER = 28
"""AdamW in float32 reads weight, gradient and two moments and writes weight and two moments: seven times four bytes."""

PASSES_OVER_ACTIVATIONS = 4
"""Each kept tensor is written and read in the forward pass, and read and answered by a gradient in the backward one."""


def seconds_by_part(job: Job) -> dict[str, float]:
    """Predicted seconds: a roofline for the steps, measured constants for the rest."""
    machine, run = job.machine, evidence()["run"]
    rate = machine.flops[machine.dtype] * machine.efficiency.matmul
    bandwidth = machine.bandwidth_bytes_per_second * machine.efficiency.bandwidth
    products = sum(flops_by_part(job).values()) / rate
    passes = (1 + job.recomputed_layers / job.shape.layers) * PASSES_OVER_ACTIVATIONS
    moved = job.computed_tokens * job.shape.layers * activation_bytes_per_token(job) * passes / bandwidth
    updates = job.steps * job.trained_parameters * OPTIMIZER_BYTES_PER_PARAMETER / bandwidth
    launches = job.micro_batches * machine.efficiency.step_overhead_seconds
    stored = job.shape.weights_bytes_on_disk or 2 * job.shape.parameters
    return {
        "import": run["import_seconds"],
        "load": stored / run["load_bytes_per_second"],
        "train": products + moved + updates + launches,
        "evaluate": evaluation_flops(job) / rate,
        "save": run["save_seconds"],
    }


def usd_of(job: Job, seconds: float) -> float | None:
    """Dollars for so many seconds, None without a price."""
    price = job.machine.usd_per_hour
    return None if price is None else seconds / 3600 * price
