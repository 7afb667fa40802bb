"""Seconds by part of everything that is billed, and dollars."""

from __future__ import annotations

from tenfold.job.activations import FLOAT32_BYTES, touched_bytes
from tenfold.job.flops import evaluation_flops, flops_by_part, frozen_flops
from tenfold.job.job import Job
from tenfold.machine import evidence
from tenfold.workload import MicroBatch

OPTIMIZER_BYTES_PER_PARAMETER = {"adamw": 28, "adamw_8bit": 242}
"""AdamW in float32 reads weight, gradient and two moments and writes weight and two moments: seven times four bytes. In
eight bits it is not one fused operation: reads and writes of run/adam8bit, counted operation by operation."""

FUSED_LOGIT_BYTES = 44
"""Reads and writes of each logit in rig/chunked_loss: product 4, log-sum-exp 12, softmax in place 16, narrowing 8, two
products 4."""


def seconds_by_part(job: Job) -> dict[str, float]:
    """Predicted seconds: a roofline for the steps, measured constants for the rest."""
    machine, run = job.machine, evidence()["run"]
    rate = machine.flops[machine.dtype] * machine.efficiency.matmul
    bandwidth = machine.bandwidth_bytes_per_second * machine.efficiency.bandwidth
    products = sum(flops_by_part(job).values()) / rate
    if job.quantized and job.fp8_products:
        products -= frozen_flops(job) * (1 / rate - 1 / (machine.flops["float8"] * machine.efficiency.matmul))
    moved = (_moved_bytes(job) + _dequantized_bytes(job)) / bandwidth
    updates = job.steps * job.trained_parameters * OPTIMIZER_BYTES_PER_PARAMETER[job.optimizer] / bandwidth
    launches = job.micro_batches * job.shape.layers * machine.efficiency.block_overhead_seconds
    launches *= 1 + 0.5 * job.recomputed_layers / job.shape.layers
    computed = products + moved
    if job.compiled and job.packed_tokens is not None:
        launches = 0.0  # a recorded pass is one launch
    steps = max(computed, launches) if machine.vendor_kind == "cuda" else computed + launches
    stored = job.shape.weights_bytes_on_disk or 2 * job.shape.parameters
    return {
        "import": run["import_seconds"],
        "load": stored / run["load_bytes_per_second"],
        "warm_start": _preparation_seconds(job, rate, stored / run["load_bytes_per_second"]),
        "compile": run["compile_seconds"] if job.compiled else 0.0,
        "train": steps + updates,
        "evaluate": evaluation_flops(job) / rate,
        "save": run["save_seconds"],
    }


def _preparation_seconds(job: Job, rate: float, load_seconds: float) -> float:
    """Making a warm start's base, which is read, changed, written, and read once more."""
    return 0.0 if job.original is None else 2 * load_seconds + job.preparation_flops / rate


def _moved_bytes(job: Job) -> float:
    """Bytes moved by all that is not a matrix product, over the run; half of a block's are forward, and repeated."""
    epoch, repeated = job.epoch, job.recomputed_layers / job.shape.layers
    every = MicroBatch(0.0, epoch.tokens, job.workload.longest, epoch.tokens, epoch.pairs, job.largest.masked)
    blocks = job.epochs_trained * touched_bytes(job, every) * (1 + 0.5 * repeated)
    logits = job.head_rows * job.shape.vocab_size
    if job.loss_rows is not None:
        return blocks * job.machine.efficiency.passes + logits * FUSED_LOGIT_BYTES
    return (blocks + logits * (2 * FLOAT32_BYTES + job.dtype_bytes % FLOAT32_BYTES)) * job.machine.efficiency.passes


def _dequantized_bytes(job: Job) -> float:
    """Bytes of making stored weights dense, read and written once forward, once backward and once where repeated."""
    if not job.quantized:
        return 0.0
    passes = job.micro_batches * (2 + job.recomputed_layers / job.shape.layers)
    return passes * (job.stored_bytes + job.shape.block_parameters * job.dtype_bytes)


def usd_of(job: Job, seconds: float) -> float | None:
    """Dollars for so many seconds, None without a price."""
    price = job.machine.usd_per_hour
    return None if price is None else seconds / 3600 * price
