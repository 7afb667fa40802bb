"""How many operations the host launches, one by one, in eager mode. Views are free, and what a kernel does is one.

Counted on stock transformers layers by a dispatch mode, and held against it on every family in
tests/job/test_launches.py.
"""

from __future__ import annotations

from tenfold.job.activations import WRITTEN_OUT_GELU
from tenfold.job.job import Job

COMPILED_BLOCK = 80.0
"""Of a compiled block, forward and backward: its kernels, its guards, and the two calls of its autograd function."""

ENDS = 60.0
"""Embeddings, masks, rotary tables, final norm, head and loss, forward and backward."""

UPDATE_OF_A_TENSOR = 4.0
"""On a CPU, where nothing is launched for many tensors at once: norm, clipping, update, zeroing."""

UPDATE_8BIT = 60.0
"""Of each piece of a tensor whose moments are in eight bits: run/adam8bit, counted."""

PIECE_8BIT = 2**22
"""Weights of such a piece."""

STORED = {"nf4": 7.7, "fp8": 3.0, "int8": 3.0}
"""To make one stored weight dense."""


def block_launches(job: Job) -> float:
    """Of one block in one micro-batch, forward and backward, and forward again where it is recomputed."""
    if job.compiled:
        return COMPILED_BLOCK
    shape = job.shape
    linears, adapted = len(shape.block_linears), len(job.adapted)
    norms = (4 if shape.post_norms else 2) + (2 if shape.qk_norm else 0)
    rotated = 10.0 if shape.rotary else 0.0
    packed = job.packed_tokens is not None
    activation = 2.0 if shape.gated_mlp else 7.0 if shape.activation in WRITTEN_OUT_GELU else 1.0
    each = (6.0, 12.0 if job.adapted else 14.0) if shape.norm == "rms" else (1.0, 1.0)
    others = (7, 12) if shape.norm == "rms" else (5, 8)
    biases = sum(x.bias for x in shape.block_linears) if job.adapted else 0  # frozen: no sum of their gradients
    forward = others[0] + linears + norms * each[0] + rotated + activation + 2 * adapted + (6 if packed else 0)
    backward = (
        others[1]
        + 2 * linears
        - biases
        + norms * each[1]
        + 1.4 * rotated
        + activation
        + 6 * adapted
        + (15 if packed else 0)
    )
    if job.quantized:
        made = linears * STORED[job.stored_as or "fp8"]
        forward, backward = forward + made, backward + made
    return forward * (1 + job.recomputed_layers / shape.layers) + backward


def end_launches(job: Job) -> float:
    """Of all that is not in a block, in one micro-batch."""
    return ENDS


def update_launches(job: Job) -> float:
    """Of one optimizer step. On a GPU plain AdamW takes all tensors at once, in a few launches."""
    shape = job.shape
    tensors = 2 * len(job.adapted) * shape.layers + (4 if job.task == "classify" else 0)
    if not job.adapted:
        tensors = shape.layers * (sum(2 if x.bias else 1 for x in shape.block_linears) + 2) + 4
    if job.optimizer == "adamw_8bit":
        return UPDATE_8BIT * (tensors + job.trained_parameters / PIECE_8BIT)
    return UPDATE_OF_A_TENSOR * tensors if job.machine.vendor_kind == "cpu" else UPDATE_OF_A_TENSOR
