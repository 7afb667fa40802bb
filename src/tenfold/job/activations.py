"""What stock transformers layers keep for the backward pass, tensor by tensor.

Counted as autograd counts: a tensor that two operations save is one storage, and a view keeps its whole storage. Held
against torch.autograd.graph.saved_tensors_hooks on every family in tests/test_job.py. Widths are per token, in bytes.
"""

from __future__ import annotations

from tenfold.job.job import Job
from tenfold.workload import MicroBatch

WRITTEN_OUT_GELU = {"gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh_python"}
"""Activations that transformers computes operation by operation: they keep their input, x / 2, tanh and 1 + tanh."""

FIRST_LAYERS = {"q", "k", "v", "qkv"}
"""Linear layers that read the embeddings in the first block: where those are frozen, no gradient goes below them."""

FLOAT32_BYTES = 4


def kept_bytes(job: Job, micro: MicroBatch) -> float:
    """All that the model keeps of a micro-batch between its forward and its backward pass, logits left out."""
    if not job.recomputed_layers:
        return touched_bytes(job, micro)
    kept = job.shape.layers - job.recomputed_layers
    blocks = kept * block_bytes(job, micro) + job.recomputed_layers * input_bytes(job, micro)
    return blocks + end_bytes(job, micro)


def touched_bytes(job: Job, micro: MicroBatch) -> float:
    """What it would keep with nothing recomputed: also what it reads and writes a few times over on the way."""
    return job.shape.layers * block_bytes(job, micro) - first_block_saving(job, micro) + end_bytes(job, micro)


def block_bytes(job: Job, micro: MicroBatch) -> float:
    """What one block keeps of a micro-batch."""
    if job.compiled and job.adapted and job.shape.gated_mlp and job.shape.norm == "rms" and not job.adapter_dropout:
        return micro.tokens * compiled_width(job) * job.machine.overheads.compiled_kept
    per_token = (
        _norm_bytes(job) + _linear_input_bytes(job) + _mlp_bytes(job) + _adapter_bytes(job) + _dropout_bytes(job)
    )
    return micro.tokens * per_token + _attention_bytes(job, micro)


def compiled_width(job: Job) -> float:
    """Bytes a token of a compiled block of frozen weights: what no cheap operation can make again from what is kept.

    The two inputs of its norms; queries, keys, values, output and log-sum-exp of attention; gate and up; and A x of
    each adapter. rig/compiling.py lets the compiler recompute the rest, and tests/rig/test_compiling.py counts it.
    """
    shape, size = job.shape, job.dtype_bytes
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    stream = (4 if shape.post_norms else 2) * shape.hidden_size
    normed = query + key if shape.qk_norm else 0
    width = stream + 2 * query + 2 * key + normed + 2 * shape.intermediate_size
    statistics = (shape.heads + 2) * FLOAT32_BYTES
    thin = sum(linear.name in job.adapted for linear in shape.block_linears) * job.adapter_rank
    return (width + thin) * size + statistics


def input_bytes(job: Job, micro: MicroBatch) -> float:
    """What a recomputed block keeps: its input."""
    return micro.tokens * job.shape.hidden_size * _stream_size(job)


def first_block_saving(job: Job, micro: MicroBatch) -> float:
    """What the first block does not keep where embeddings are frozen, since no gradient goes below it: the input of its
    first norm, and what dropout drew for the adapters that read it."""
    if not job.adapted or job.row_parameters:
        return 0.0
    width = 0.0 if job.shape.post_norm else job.shape.hidden_size * FLOAT32_BYTES
    if job.adapter_dropout:
        reading = [x for x in job.shape.block_linears if x.name in FIRST_LAYERS and x.name in job.adapted]
        width += sum(x.in_features for x in reading) * _mask_size(job)
    return micro.tokens * width


def end_bytes(job: Job, micro: MicroBatch) -> float:
    """What embeddings, final norm and the input of the head keep."""
    shape, learns_all = job.shape, not job.adapted
    hidden = shape.hidden_size
    width = 0.0
    if not shape.post_norm:  # the final norm's input and, for its weight's gradient, the normalised input
        width += hidden * FLOAT32_BYTES * (2 if learns_all and shape.norm == "rms" else 1)
    if learns_all and (shape.kind == "encoder"):  # embeddings are normalised
        width += hidden * FLOAT32_BYTES
        width += _dropped_out(job, hidden)
    elif learns_all:
        width += _dropped_out(job, hidden) if shape.norm == "layer" else 0
    if job.task == "classify":  # the pooled token is a view that keeps the whole hidden state
        width += hidden * job.dtype_bytes
        unpacked = micro.rows * micro.longest * hidden * job.dtype_bytes if job.packed_tokens is not None else 0.0
        return micro.tokens * width + unpacked
    if learns_all and job.loss_rows is None:  # the head's input, for the gradient of its weight
        width += hidden * job.dtype_bytes
    return micro.tokens * width


def _stream_size(job: Job) -> int:
    """Bytes of a number in the residual stream: that of the weights that make it."""
    return job.dtype_bytes if job.adapted else FLOAT32_BYTES


def norm_size(job: Job) -> int:
    """Bytes of a number in a layer norm: autocast widens it on a GPU, and leaves it as it comes on a CPU."""
    return _stream_size(job) if job.shape.norm == "layer" and job.machine.vendor_kind == "cpu" else FLOAT32_BYTES


def _norm_bytes(job: Job) -> float:
    """Norms work in float32 under autocast too; the normalised input is kept for the gradient of the norm's weight."""
    shape = job.shape
    if shape.norm == "layer":
        return 2 * (shape.hidden_size * norm_size(job) + 2 * FLOAT32_BYTES)  # input, mean, 1 / deviation
    copies = 1 if job.adapted else 2
    width = 2 * (copies * shape.hidden_size + 1)
    if shape.post_norms:
        width *= 2
    if shape.qk_norm:
        width += copies * (shape.heads + shape.kv_heads) * shape.head_dim + shape.heads + shape.kv_heads
    return width * FLOAT32_BYTES


def _linear_input_bytes(job: Job) -> float:
    """Inputs of linear layers, each once however many layers share it; a frozen layer without adapter keeps none.

    Where autocast narrows the float32 result of a norm, every layer that reads it keeps a copy of its own.
    """
    shape = job.shape
    narrowed = job.dtype_bytes < FLOAT32_BYTES and (shape.norm == "layer" or not job.adapted)
    width = 0
    for group in (FIRST_LAYERS, {"gate", "up", "gate_up"}):
        reading = sum(_keeps_input(job, {linear.name}) for linear in shape.block_linears if linear.name in group)
        width += shape.hidden_size * (reading if narrowed else min(1, reading))
    if _keeps_input(job, {"down"}):
        width += shape.intermediate_size
    return width * job.dtype_bytes


def _keeps_input(job: Job, names: set[str]) -> bool:
    """Whether one of these layers needs its input as it is; an adapter with dropout needs the dropped one instead."""
    return not job.adapted or (not job.adapter_dropout and not names.isdisjoint(job.adapted))


def _mlp_bytes(job: Job) -> float:
    """Between the layers of the feed-forward part."""
    shape, size = job.shape, job.dtype_bytes
    if shape.gated_mlp:  # gate and up (one storage if fused) and the activated gate
        return 3 * shape.intermediate_size * size
    if shape.activation in WRITTEN_OUT_GELU:  # autocast takes the power to float32, and what follows from it
        return shape.intermediate_size * (3 * FLOAT32_BYTES + size)
    return shape.intermediate_size * size


def _adapter_bytes(job: Job) -> float:
    """A x of every adapter; with dropout also the dropped input and what was drawn."""
    adapted = [linear for linear in job.shape.block_linears if linear.name in job.adapted]
    width = len(adapted) * job.adapter_rank * job.dtype_bytes
    if job.adapter_dropout:
        inputs = sum(linear.in_features for linear in adapted)
        width += inputs * job.dtype_bytes + _mask_size(job) * inputs
    return width


def _dropout_bytes(job: Job) -> float:
    shape = job.shape
    return _dropped_out(job, shape.hidden_size) * (1 if shape.model_type == "distilbert" else 2)


def _dropped_out(job: Job, width: int) -> float:
    return width * _mask_size(job) if job.shape.hidden_dropout else 0.0


def _mask_size(job: Job) -> int:
    """Bytes that dropout keeps per number: a bool on a GPU, the noise itself on a CPU."""
    return 1 if job.machine.vendor_kind == "cuda" else job.dtype_bytes


def _attention_bytes(job: Job, micro: MicroBatch) -> float:
    """Queries, keys, values, output and log-sum-exp as the fused kernels keep them."""
    shape, size, packed = job.shape, job.dtype_bytes, job.packed_tokens is not None
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    fused = any(linear.name == "qkv" for linear in shape.block_linears)
    if micro.masked:  # grouped keys and values are repeated for kernels that take a mask
        key_used = query
        mask = micro.pairs * size
    else:
        key_used, mask = key, 0.0
    if shape.attention_dropout and job.machine.vendor_kind == "cpu":
        # No fused kernel drops out on a CPU: copies of q, k and v, then probabilities, noise and their product.
        probabilities = 3 * shape.heads * micro.pairs * size
        output = query * micro.tokens if _keeps_input(job, {"o"}) else 0
        return (3 * query * micro.cells + output) * size + probabilities
    if packed:
        if job.machine.vendor_kind == "cpu":
            size = FLOAT32_BYTES  # rig/segments computes attention in it there
        width = query + 2 * key
        output = query * micro.cells + (query * micro.tokens if _keeps_input(job, {"o"}) else 0)
    else:
        width = _query_key_value_width(job, query, key, key_used, fused)
        copies = 2 if shape.model_type == "phi3" and _keeps_input(job, {"o"}) else 1
        output = copies * query * micro.cells
    statistics = shape.heads * micro.cells * FLOAT32_BYTES
    return (width * micro.cells + output) * size + statistics + mask


def _query_key_value_width(job: Job, query: int, key: int, key_used: int, fused: bool) -> int:
    """Numbers per token of queries, keys and values; a value that is a view keeps the whole fused projection alive."""
    if not fused:
        return query + 2 * key_used
    if not job.shape.rotary:
        return query + 2 * key
    values = key_used if key_used != key else query + 2 * key
    return query + key_used + values
