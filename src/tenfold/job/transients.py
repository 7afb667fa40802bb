"""What lives for a moment only: logits, what a backward pass makes on its way, dense copies of stored weights."""

from __future__ import annotations

from tenfold.job.activations import FLOAT32_BYTES, WRITTEN_OUT_GELU, feed_forward_bytes, norm_size
from tenfold.job.fullest import fullest_head_rows
from tenfold.job.job import Job

PIECE_8BIT = 2**22
"""Weights whose moments run/adam8bit holds in float32 at once."""

PIECE_8BIT_BYTES = {"adamw_8bit": 32, "adamw_8bit_split": 44}
"""Of each of them: two moments, gradient, change, and what codes are made of; of split weights the master, and what its
roundings are made of. Counted by the allocator."""


def loss_bytes(job: Job) -> float:
    """Logits and what the loss makes of them, or of a chunk of them once fused."""
    if job.task == "classify":
        return 0.0
    shape, size = job.shape, job.dtype_bytes
    tokens = job.largest.tokens
    if job.loss_rows is None:
        return tokens * 3 * FLOAT32_BYTES * shape.vocab_size  # backward: log-softmax, its gradient, that of the logits
    rows = fullest_head_rows(job)
    # A chunk in float32, its exponentials, and in the working dtype; compiled, a chunk and its gradient.
    each = 2 * size if job.compiled else 2 * FLOAT32_BYTES + (size if size < FLOAT32_BYTES else 0)
    chunk = min(job.loss_rows, rows) * each * shape.vocab_size
    head = FLOAT32_BYTES * job.learned_head_parameters
    if not job.adapted:  # the head's gradient, a chunk's share of it, and a narrow copy of its weight
        narrow = size if size < job.learned_bytes else 0
        head = shape.head_parameters * (size + narrow + (FLOAT32_BYTES if rows > job.loss_rows else 0))
    return max(chunk, tokens * shape.intermediate_size * size) + 2 * rows * shape.hidden_size * size + head


def loss_gradient_bytes(job: Job) -> float:
    """What the chunked loss hands to the backward pass: the gradient of its rows, and of the head's weight."""
    if job.task == "classify" or job.loss_rows is None:
        return 0.0
    rows = fullest_head_rows(job)
    learned = job.learned_head_parameters if job.adapted else job.shape.head_parameters
    head = 0.0 if job.accumulates else job.learned_bytes * learned
    return rows * job.shape.hidden_size * job.dtype_bytes + head


def backward_bytes(job: Job, share: float = 1.0, final: bool = True) -> float:
    """What the backward pass makes, beside all that is kept, at its widest: in the `final` norm or in the feed-forward
    part of the last block, which may see a `share` of the tokens alone; of another block, in its feed-forward part.

    Counted on stock layers by the allocator's own account: tests/job/test_job_memory.py.
    """
    shape, size = job.shape, job.dtype_bytes
    tokens, hidden = job.largest.tokens, shape.hidden_size
    if job.compiled and job.adapted:
        return tokens * (share * _compiled_width(job) + 2 * hidden * size) + _dense_at_once(job)
    wide = hidden * size + share * feed_forward_width(job)
    if shape.post_norm or (
        not final and shape.post_norms
    ):  # the norm after the feed-forward part has been passed, and what it kept is free
        wide -= 2 * hidden * norm_size(job)
    elif final:  # so has the final norm, which is wide itself
        copies = 1 if job.adapted or shape.norm == "layer" else 2
        in_norm = RMS_BACKWARD * FLOAT32_BYTES if shape.norm == "rms" else 2.0 * norm_size(job)
        wide = max(in_norm * hidden, wide - copies * hidden * FLOAT32_BYTES)
    return tokens * max(wide, 2.0 * hidden * size) + _dense_at_once(job)


def tiled_block_bytes(job: Job, block: float) -> float:
    """Of a block that is run again, its feed-forward part in tiles, at its widest: what it keeps, `block` bytes without
    tiles, and what its backward pass makes: in a tile, with the part's input and the gradients at both its ends beside
    it; or in its attention."""
    shape, size = job.shape, job.dtype_bytes
    micro = job.largest
    kept = feed_forward_bytes(job, micro)
    made = _compiled_width(job) if job.compiled and job.adapted else feed_forward_width(job)
    hidden = shape.hidden_size * size
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    of_a_tile = micro.tokens * made + kept - (0.0 if job.compiled else micro.tokens * hidden)  # its input is a view
    tile = micro.tokens * BESIDE_A_TILE[job.machine.vendor_kind] * hidden + of_a_tile / job.mlp_tiles
    attention = micro.tokens * (2 * hidden + (2 * query + 2 * key) * size + query * FLOAT32_BYTES)
    return block - kept + max(tile, attention) + _dense_at_once(job)


BESIDE_A_TILE = {"cpu": 3, "cuda": 5}
"""Hidden states beside a tile: the part's input and the gradients at both its ends; on a GPU two more, not told apart,
in the one run that was measured (131,072 tokens, 8B: bench/results/longest_llama-8b_h200_2026-11-28.json)."""

RMS_BACKWARD = 4.75
"""Float32 copies of its input that a root-mean-square norm's backward pass holds at once, operation by operation."""


def _compiled_width(job: Job) -> float:
    """Bytes a token that a compiled backward pass holds in the feed-forward part; fp8 products also round to two."""
    rounded = 2.0 * job.shape.intermediate_size if job.computes_fp8 else 0.0
    return job.machine.overheads.compiled_widths * job.shape.intermediate_size * job.dtype_bytes + rounded


def feed_forward_width(job: Job) -> float:
    """Bytes a token that the backward pass of the feed-forward part makes beyond what it has freed by then."""
    shape, size = job.shape, job.dtype_bytes
    if shape.gated_mlp:
        return 2.0 * shape.intermediate_size * size
    if shape.activation in WRITTEN_OUT_GELU:  # autocast takes the power to float32, and what follows from it, on a GPU
        return 2.0 * shape.intermediate_size * (FLOAT32_BYTES if job.machine.vendor_kind == "cuda" else size)
    return float(shape.intermediate_size * size)


def _dense_at_once(job: Job) -> float:
    """The largest stored layer, dense."""
    if not job.quantized or job.keeps_ready:
        return 0.0
    largest = max(x.in_features * x.out_features for x in job.shape.block_linears)
    if not job.compiled:
        return 2.0 * FLOAT32_BYTES * largest  # levels and products of them in float32
    return largest * (2.0 if job.computes_fp8 else float(job.dtype_bytes))  # in fp8 as it is, and turned


def narrow_weight_bytes(job: Job, blocks: int) -> float:
    """Where all weights learn in float32 and products compute in bfloat16: the narrow copies of so many blocks."""
    if job.adapted or job.dtype_bytes >= job.learned_bytes:
        return 0.0
    head = job.shape.head_parameters if job.task != "classify" and job.loss_rows is None else 0
    return job.dtype_bytes * (blocks / job.shape.layers * job.shape.block_parameters + head)


def update_bytes(job: Job) -> float:
    """What the optimizer makes on its way."""
    if job.optimizer == "adamw" or job.compiled:  # one operation
        return 0.0
    return float(min(PIECE_8BIT, job.trained_parameters) * PIECE_8BIT_BYTES[job.optimizer])
