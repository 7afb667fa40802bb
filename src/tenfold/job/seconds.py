"""Seconds by part of everything that is billed, and dollars."""

from __future__ import annotations

from dataclasses import replace

from tenfold.job.activations import FLOAT32_BYTES, block_bytes, footprint, touched_bytes
from tenfold.job.flops import evaluation_flops, flops_by_part, frozen_flops
from tenfold.job.job import Job
from tenfold.machine import Machine, evidence
from tenfold.workload import MicroBatch

OPTIMIZER_BYTES_PER_PARAMETER = {"adamw": 28, "adamw_8bit": 242}
"""AdamW in float32 reads weight, gradient and two moments and writes weight and two moments: seven times four bytes. In
eight bits it is not one fused operation: reads and writes of run/adam8bit, counted operation by operation."""

FUSED_LOGIT_BYTES = 44
"""Reads and writes of each logit in rig/chunked_loss: product 4, log-sum-exp 12, softmax in place 16, narrowing 8, two
products 4."""

HOST_LINKS = ((9.0, 50e9), (8.0, 25e9), (0.0, 12.5e9))
"""Bytes per second by least compute capability: 0.8 of PCI Express 5, 4 and 3 with 16 lanes (63, 31.5 and 15.8 GB/s by
PCI-SIG's base specifications; the generation by NVIDIA's data sheets). The 0.8 is a guess, not measured."""


def seconds_by_part(job: Job) -> dict[str, float]:
    """Predicted seconds: a roofline for the steps, measured constants for the rest."""
    machine, run = job.machine, evidence()["run"]
    computed, stalled = _step_seconds(job)
    bandwidth = _bandwidth(machine)
    updates = job.steps * job.trained_parameters * OPTIMIZER_BYTES_PER_PARAMETER[job.optimizer] / bandwidth
    stored = job.shape.weights_bytes_on_disk or 2 * job.shape.parameters
    return {
        "import": run["import_seconds"],
        "load": stored / run["load_bytes_per_second"],
        "compile": run["compile_seconds"] if job.compiled else 0.0,
        "train": computed + stalled + updates,
        "evaluate": evaluation_flops(job) / _rate(machine),
        "save": run["save_seconds"],
    }


def _rate(machine: Machine) -> float:
    return machine.flops[machine.dtype] * machine.efficiency.matmul


def _bandwidth(machine: Machine) -> float:
    return machine.bandwidth_bytes_per_second * machine.efficiency.bandwidth


def _step_seconds(job: Job) -> tuple[float, float]:
    """Forward and backward passes of all steps, and what they wait for the host."""
    machine, rate = job.machine, _rate(job.machine)
    products = sum(flops_by_part(job).values()) / rate
    if job.quantized and job.fp8_products:
        products -= frozen_flops(job) * (1 / rate - 1 / (machine.flops["float8"] * machine.efficiency.matmul))
    computed = products + (_moved_bytes(job) + _dequantized_bytes(job)) / _bandwidth(machine)
    launches = job.micro_batches * job.shape.layers * machine.efficiency.block_overhead_seconds
    launches *= 1 + 0.5 * job.recomputed_layers / job.shape.layers
    if job.compiled and job.packed_tokens is not None and not job.offloaded_layers:
        launches = 0.0  # a recorded pass is one launch
    computed = max(computed, launches) if machine.vendor_kind == "cuda" else computed + launches
    return computed, _stalled_seconds(job, computed)


def blocks_copied_beside(job: Job) -> tuple[int, int]:
    """How many blocks can be copied to the host while a forward pass computes, and back during a backward pass."""
    forward, backward = _pass_seconds(job, sum(_step_seconds(replace(job, offloaded_layers=0))))
    every = job.epochs_trained * block_bytes(job, _every(job)) / _host_link(job.machine)
    return int(forward / every), int(backward / every)


def _host_link(machine: Machine) -> float:
    """Bytes per second between a GPU and pinned host memory, in each direction."""
    return next(rate for capability, rate in HOST_LINKS if (machine.compute_capability or 0.0) >= capability)


def _pass_seconds(job: Job, steps: float) -> tuple[float, float]:
    """Forward and backward pass: as long as one another where most weights are frozen, else one to two."""
    forward = steps / (2 if job.adapted else 3)
    return forward, steps - forward


def _stalled_seconds(job: Job, steps: float) -> float:
    """What copies to the host and back take longer than the passes beside which they are made."""
    if not job.offloaded_layers:
        return 0.0
    copied = job.epochs_trained * footprint(job, _every(job)).on_host(job.blocks) / _host_link(job.machine)
    return sum(max(0.0, copied - seconds) for seconds in _pass_seconds(job, steps))


def _every(job: Job) -> MicroBatch:
    """All micro-batches of an epoch as one, for what grows with tokens and pairs."""
    epoch = job.epoch
    return MicroBatch(0.0, epoch.tokens, job.workload.longest, epoch.tokens, epoch.pairs, job.largest.masked)


def _moved_bytes(job: Job) -> float:
    """Bytes moved by all that is not a matrix product, over the run; half of a block's are forward, and repeated."""
    repeated = job.recomputed_layers / job.shape.layers
    blocks = job.epochs_trained * touched_bytes(job, _every(job)) * (1 + 0.5 * repeated)
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
