"""Bytes by kind at the peak of a step."""

from __future__ import annotations

from tenfold.job.activations import activation_bytes_per_token, mask_bytes_per_token
from tenfold.job.job import Job
from tenfold.machine import evidence

CUDA_CONTEXT_BYTES = 0.6e9
"""What a CUDA context and cuBLAS workspaces take beside torch's own allocations, measured on an H200."""

MARGIN = 0.06
"""Share of a machine's memory left free for fragmentation; the planner fills at most the rest."""


def bytes_by_kind(job: Job) -> dict[str, float]:
    """Bytes at the peak of a training step, by what they hold."""
    shape, size, on_gpu = job.shape, job.dtype_bytes, job.machine.vendor_kind == "cuda"
    trained = job.trained_parameters
    if job.adapted:
        weights = (job.parameters - job.task_parameters) * size + job.task_parameters * 4
    else:  # float32 masters, and on a GPU autocast's working copies of the linear layers
        weights = job.parameters * 4 + (shape.block_parameters * 2 if on_gpu and size == 2 else 0)
    tokens = job.peak_micro_tokens
    per_token = activation_bytes_per_token(job) + mask_bytes_per_token(job)
    kept_layers = shape.layers - job.recomputed_layers
    boundary = shape.hidden_size * size
    layers = tokens * (kept_layers * per_token + job.recomputed_layers * boundary)
    again = tokens * per_token if job.recomputed_layers else 0  # the block being run again
    ends = tokens * shape.hidden_size * size * 3  # embedding output and final norm
    return {
        "weights": float(weights),
        "adapters": 4.0 * job.adapter_parameters,
        "gradients": 4.0 * trained,
        "optimizer": 8.0 * trained,
        "activations": layers + again + ends,
        "logits": logits_bytes(job),
        "transients": tokens * (2 * shape.intermediate_size + 4 * shape.hidden_size) * size,
        "context": CUDA_CONTEXT_BYTES if on_gpu else float(evidence()["run"]["library_bytes_cpu"]),
    }


def logits_bytes(job: Job) -> float:
    """Logits in the working dtype and float32, their log-softmax and its gradient; of a chunk once fused."""
    if job.task == "classify":
        return 0.0
    shape = job.shape
    wide = 4 * shape.vocab_size
    if job.loss_rows is None:
        narrow = job.dtype_bytes * shape.vocab_size if job.dtype_bytes == 2 else 0
        return job.peak_micro_tokens * (narrow + 2 * wide)
    rows = min(job.loss_rows, job.peak_micro_tokens)
    # the chunk in float32 and in the working dtype; then hidden rows and their gradient
    chunk = rows * (wide + job.dtype_bytes * shape.vocab_size)
    head_gradient = 0 if job.adapted else 4 * shape.head_parameters
    return chunk + 2 * job.peak_micro_tokens * job.loss_share * shape.hidden_size * job.dtype_bytes + head_gradient


def peak_bytes(job: Job) -> float:
    """The sum of all kinds, with transients and logits not alive at the same time."""
    kinds = bytes_by_kind(job)
    return sum(kinds.values()) - min(kinds["transients"], kinds["logits"])
