"""Seconds by part of everything that is billed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tenfold.job.activations import footprint
from tenfold.job.checking import checking_work
from tenfold.job.job import Job
from tenfold.job.memory import MOMENT_BYTES
from tenfold.job.recording import RECORDING, new_shapes, of_one_length
from tenfold.job.work import Work, evaluation_work, every_micro_batch, training_work
from tenfold.machine import Efficiency, Machine

TILE = 2 * 128 * 256
"""FLOPs of a tile of a product for each unit of its summed dimension; 128 x 256 is cuBLAS's and CUTLASS's largest."""

HOST_LINKS = ((9.0, 50e9), (8.0, 25e9), (0.0, 12.5e9))
"""Bytes per second by least compute capability: 0.8 of PCI Express 5, 4 and 3 with 16 lanes (63, 31.5 and 15.8 GB/s by
PCI-SIG's base specifications; the generation by NVIDIA's data sheets). The 0.8 is a guess, not measured."""

OVERLAP = 8.0
"""How well a GPU's computing hides its host's launches, as the power of a norm of both: 1 is their sum, infinity their
maximum. Passes are limited by one for some layers and by the other for others, so that a step in which both take as
long lasts 9 % longer than either. 8 foretells the rows of other shapes within 8.5 % in the mean, 12 within 8.7, the
maximum within 9.4 (bench/results/plan_accuracy_h200.json); 3 to 6 come nearer there, 7.9 to 8.3, and are worse after
calibration on other hosts, 7.5 to 6.7 where 8 and the maximum have 6.5 (plan_accuracy_h200_2026-11-28.json, _after,
_warm)."""

SIZES_AS_SYMBOLS = 1.4
"""A compilation for micro-batches of all sizes, which mixed lengths need (rig/compiling), beside one for the sizes that
are met: 17.9 s beside 12.9 on one host (first step of a run less its passes, one probe of `tenfold calibrate`:
bench/results/plan_accuracy_h200_2026-11-28_warm.json); one probe both ways on two hosts, 22.4 beside 15.6
(plan_accuracy_h200_2026-11-28_after.json, plan_accuracy_h200_2026-11-28.json)."""

EVALUATION_COMPILED = 0.4
"""Of a compilation, that of the forward pass alone, which an evaluation is the first to need: 3.1 and 4.8 s where both
passes had taken 10 and 14 (bench/results/plan_accuracy_h200_2026-11-28_one-graph.json)."""

EXPORTING = 0.5
"""Of what a byte of a saved state takes, which is read back from the disk: 640 and 700 MB/s beside 320 and 340 on two
hosts of an H200, 340 to 800 beside 170 to 260 on CPUs (full fine-tuning, bench/results/plan_accuracy_*.json)."""

PROCESS_PARTS = (
    "import", "tokenise", "warm_start", "load", "check", "compile", "train", "evaluate", "checkpoint", "save"
)  # fmt: skip
"""Those that the run's own process spends; the others are the machine's and the market's."""


def work_seconds(work: Work, machine: Machine, efficiency: Efficiency | None = None) -> float:
    """What a machine takes for this work. A GPU computes while its host launches, a CPU does one after the other; both
    make the update after all passes, since the host waits for the gradients' norm."""
    known = machine.efficiency if efficiency is None else efficiency
    rate = machine.flops[machine.dtype]
    fp8_rate = machine.flops.get("float8", rate) * known.fp8_products
    stream = machine.bandwidth_bytes_per_second * known.bandwidth
    last_waves = known.last_wave * TILE * work.depth * machine.multiprocessors
    computed = (
        (work.products + last_waves) / (rate * known.products)
        + work.fp8_products / fp8_rate
        + work.attention / (rate * known.attention)
        + work.ragged_attention / (rate * known.ragged_attention)
        + work.masked_attention / (rate * known.masked_attention)
        + work.attention_tiles * known.tile_seconds
        + work.noise * known.noise_seconds
        + work.searches * known.search_seconds
        + (work.streamed_bytes + known.touches * work.touched_bytes) / stream
        + work.operand_bytes / (machine.bandwidth_bytes_per_second * known.operands)
        + work.adapter_bytes / (machine.bandwidth_bytes_per_second * known.adapters)
        + work.dequantized_bytes / (machine.bandwidth_bytes_per_second * known.dequantize)
        + work.paged_bytes / (machine.bandwidth_bytes_per_second * known.paging)
        + work.kernels * known.kernel_seconds
    )
    launched = work.launches * known.launch_seconds
    updated, update_launched = work.update_bytes / stream, work.update_launches * known.launch_seconds
    fixed = (
        work.micro_batches * known.micro_batch_seconds
        + work.steps * known.step_seconds
        + work.tokens * known.token_seconds
    )
    if machine.vendor_kind == "cuda":
        return fixed + _overlapped(computed, launched) + max(updated, update_launched)
    return fixed + computed + launched + updated + update_launched


def _overlapped(computed: float, launched: float) -> float:
    """Of a GPU's passes."""
    longer = max(computed, launched)
    if not longer:
        return 0.0
    return longer * (1 + (min(computed, launched) / longer) ** OVERLAP) ** (1 / OVERLAP)


def seconds_by_part(job: Job) -> dict[str, float]:
    """Predicted seconds of an undisturbed run: its steps by `work_seconds`, the rest by measured rates."""
    return seconds_on(job, job.machine, training_work(job), evaluation_work(job), checking_work(job))


def seconds_on(job: Job, machine: Machine, training: Work, evaluation: Work, checking: Work) -> dict[str, float]:
    """The same for a machine of the kind that the job was counted for, with its work counted before."""
    known, shape, workload = machine.overheads, job.shape, job.workload
    stored = shape.weights_bytes_on_disk or 2 * shape.parameters
    packed = job.shape.block_parameters if job.quantized else 0
    exported = exported_bytes(job)
    load_seconds = known.load_seconds + (stored / known.load_bytes_per_second if job.pretrained else 0.0)
    train_seconds = work_seconds(training, machine)
    return {
        "setup": machine.terms.setup_seconds,
        "import": known.import_seconds,
        "tokenise": (workload.tokens + workload.evaluation_tokens) / known.tokens_per_second,
        "download": 0.0 if machine.here else stored / known.download_bytes_per_second,
        "warm_start": _preparation_seconds(job, machine, load_seconds),
        "load": load_seconds + packed / known.stored_weights_per_second + job.compiled * known.compiler_seconds,
        "check": work_seconds(checking, machine) + job.checked * known.first_pass_seconds,
        "compile": compiling_seconds(job, machine, training),
        "train": train_seconds + stalled_seconds(job, machine, train_seconds),
        "evaluate": work_seconds(evaluation, machine) + _compiled_for_evaluation(job, machine),
        "checkpoint": one_save_seconds(job) * (1 + (job.steps - 1) // (job.save_every_steps or job.steps)),
        "save": (job.evaluations + 1) * (known.save_seconds + EXPORTING * exported / known.saved_bytes_per_second),
        "idle": machine.terms.idle_seconds,
    }


def _preparation_seconds(job: Job, machine: Machine, load_seconds: float) -> float:
    """Making a warm start's base, which is read, changed, written, and read once more."""
    if job.original is None:
        return 0.0
    rate = machine.flops[machine.dtype] * machine.efficiency.products
    written = EXPORTING * 2.0 * job.shape.parameters / machine.overheads.saved_bytes_per_second
    return 2 * load_seconds + written + job.preparation_flops / rate


def exported_bytes(job: Job) -> float:
    """Of the adapter or model that is written: after the run, and whenever an evaluation finds it the best so far."""
    return float(job.learned_bytes * job.trained_parameters)


def one_save_seconds(job: Job) -> float:
    """Of a saved state: what learns, and its two moments."""
    known = job.machine.overheads
    return known.save_seconds + saved_bytes(job) / known.saved_bytes_per_second


def saved_share(job: Job) -> float | None:
    """Of all steps those between two saved states, where the recipe says."""
    return None if job.save_every_steps is None else min(1.0, job.save_every_steps / job.steps)


def saved_bytes(job: Job) -> float:
    """Of a saved state."""
    return job.trained_parameters * (job.master_bytes + 2 * MOMENT_BYTES[job.optimizer])


def host_link(machine: Machine) -> float:
    """Bytes per second between a GPU and pinned host memory, in each direction."""
    return next(rate for capability, rate in HOST_LINKS if (machine.compute_capability or 0.0) >= capability)


def blocks_copied_beside(job: Job, machine: Machine, train_seconds: float) -> tuple[int, int]:
    """How many blocks can be copied to the host while the forward passes compute, and back during the backward ones."""
    forward, backward = _pass_seconds(job, train_seconds)
    every = job.epochs_trained * footprint(job, every_micro_batch(job)).block / host_link(machine)
    return int(forward / every), int(backward / every)


def stalled_seconds(job: Job, machine: Machine, train_seconds: float) -> float:
    """What copies to the host and back take longer than the passes beside which they are made."""
    if not job.offloaded_layers:
        return 0.0
    copied = job.epochs_trained * footprint(job, every_micro_batch(job)).on_host(job.blocks) / host_link(machine)
    return sum(max(0.0, copied - seconds) for seconds in _pass_seconds(job, train_seconds))


def _pass_seconds(job: Job, train_seconds: float) -> tuple[float, float]:
    """Forward and backward pass: as long as one another where most weights are frozen, else one to two."""
    forward = train_seconds / (2 if job.adapted else 3)
    return forward, train_seconds - forward


def compiled_graphs(job: Job) -> int:
    """Kinds of graphs that are compiled: a layer; and one whose passes are repeated, where there are both."""
    if not job.compiled:
        return 0
    return 1 + (0 < job.recomputed_layers < job.shape.layers)


def compiling_seconds(job: Job, machine: Machine, training: Work) -> float:
    """What shapes cost that are new: layers are compiled, passes launched kernel by kernel and recorded."""
    return compiled_graphs(job) * _graph_seconds(job, machine) + _recording_seconds(job, machine, training)


def _graph_seconds(job: Job, machine: Machine) -> float:
    """Of one kind of compiled graph, both passes."""
    return machine.overheads.compile_seconds * (1.0 if of_one_length(job) else SIZES_AS_SYMBOLS)


def _recording_seconds(job: Job, machine: Machine, training: Work) -> float:
    """Beside the seconds of the same micro-batches if all of them were replayed."""
    new = new_shapes(job)
    if not new.eager:
        return 0.0
    eager = replace(training, launches=training.kernels, kernels=0.0)
    slower = (work_seconds(eager, machine) - work_seconds(training, machine)) / training.micro_batches
    launched = training.kernels / training.micro_batches * machine.efficiency.launch_seconds
    return new.eager * max(0.0, slower) + new.recorded * RECORDING * launched


def _compiled_for_evaluation(job: Job, machine: Machine) -> float:
    evaluates = job.workload.evaluation_tokens > 0
    return EVALUATION_COMPILED * _graph_seconds(job, machine) if job.compiled and evaluates else 0.0


def process_seconds(parts: Mapping[str, float]) -> float:
    """What the run's own process spends of all parts."""
    return sum(parts[name] for name in PROCESS_PARTS)
