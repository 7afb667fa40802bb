"""Bytes by kind at the peak of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tenfold.job.activations import FLOAT32_BYTES, footprint
from tenfold.job.job import Blocks, Job
from tenfold.machine import evidence

CUDA_CONTEXT_BYTES = 0.6e9
"""What a CUDA context and cuBLAS workspaces take beside torch's own allocations, measured on an H200."""

MARGIN = 0.06
"""Share of a machine's memory left free for fragmentation; the planner fills at most the rest."""


MOMENT_BYTES = {"adamw": 4.0, "adamw_8bit": 1 + 4 / 256}
"""Of each of the two moments of a weight: float32, or a code and its share of the scale of 256 (run/adam8bit)."""


def bytes_by_kind(job: Job) -> dict[str, float]:
    """Bytes at the peak of a training step, by what they hold."""
    shape, size, on_gpu = job.shape, job.dtype_bytes, job.machine.vendor_kind == "cuda"
    trained = job.trained_parameters
    if job.adapted:
        weights = (job.parameters - job.task_parameters) * size + job.task_parameters * FLOAT32_BYTES
        if job.quantized:
            weights += job.stored_bytes - shape.block_parameters * size
    else:  # float32 masters, and on a GPU autocast's working copies of the linear layers
        working = shape.block_parameters + (0 if job.task == "classify" else shape.head_parameters)
        weights = job.parameters * FLOAT32_BYTES + (working * size if on_gpu and size < FLOAT32_BYTES else 0)
    run, print_ = evidence()["run"], footprint(job, job.largest)
    activations, restored = print_.on_device(job.blocks), print_.restored(job.blocks)
    return {
        "weights": float(weights),
        "adapters": float(FLOAT32_BYTES * job.adapter_parameters),
        "gradients": float(FLOAT32_BYTES * trained),
        "optimizer": 2.0 * MOMENT_BYTES[job.optimizer] * trained,
        "activations": activations,
        "logits": logits_bytes(job),
        "transients": job.largest.tokens * (2 * shape.intermediate_size + 4 * shape.hidden_size) * size
        + dense_bytes(job)
        + restored,
        "context": CUDA_CONTEXT_BYTES if on_gpu else float(run["library_bytes_cpu"]),
        # torch accounts for every byte on a GPU; malloc keeps freed blocks that nothing else fits
        "fragmentation": 0.0 if on_gpu else float(run["fragmentation_cpu"]) * (activations + restored),
    }


def dense_bytes(job: Job) -> float:
    """The one frozen layer that is dense at a time: while it is made, levels and products of them in float32."""
    if not job.quantized:
        return 0.0
    return 2.0 * FLOAT32_BYTES * max(x.in_features * x.out_features for x in job.shape.block_linears)


def logits_bytes(job: Job) -> float:
    """Logits and what the loss makes of them, or of a chunk of them once fused."""
    if job.task == "classify":
        return 0.0
    shape, tokens, size = job.shape, job.largest.tokens, job.dtype_bytes
    wide = FLOAT32_BYTES * shape.vocab_size
    if job.loss_rows is None:
        return tokens * 3 * wide  # in the backward pass: log-softmax, its gradient, and the gradient of the logits
    rows = tokens * job.head_share
    # a chunk in float32, its exponentials, and in the working dtype; then the picked rows and their gradient
    chunk = min(job.loss_rows, rows) * (2 * wide + (size * shape.vocab_size if size < FLOAT32_BYTES else 0))
    head_gradient = 0 if job.adapted else FLOAT32_BYTES * shape.head_parameters
    return chunk + 2 * rows * shape.hidden_size * size + head_gradient


def peak_bytes(job: Job) -> float:
    """The most that is alive at once."""
    return _peak(bytes_by_kind(job), job.accumulates)


def peak_by_blocks(job: Job) -> Callable[[int, int], float]:
    """`peak_bytes` of a job of which nothing is recomputed or offloaded, by numbers of blocks that are: for who tries
    many."""
    kinds, of_blocks, layers = bytes_by_kind(job), footprint(job, job.largest), job.shape.layers
    fragments = kinds["fragmentation"] / kinds["activations"]

    def peak(recomputed: int, offloaded: int) -> float:
        blocks = Blocks.of(layers, recomputed, offloaded)
        kept, restored = of_blocks.on_device(blocks), of_blocks.restored(blocks)
        changed = {
            "activations": kept,
            "transients": kinds["transients"] + restored,
            "fragmentation": fragments * (kept + restored),
        }
        return _peak({**kinds, **changed}, job.accumulates)

    return peak


def _peak(kinds: Mapping[str, float], accumulates: bool) -> float:
    """Logits die before the block-wise transients of the backward pass are made; and where a step is one micro-batch,
    its gradients grow while its activations are freed."""
    lasting = sum(kinds[kind] for kind in ("weights", "adapters", "optimizer", "context", "fragmentation"))
    computed = kinds["activations"] + max(kinds["logits"], kinds["transients"])
    if accumulates:
        return lasting + kinds["gradients"] + computed
    return lasting + max(computed, kinds["gradients"] + kinds["transients"])
