"""How many operations the host launches, one by one, in eager mode. Views are free, and what a kernel does is one.

Counted on stock transformers layers by a dispatch mode as training runs them, autocast's casts included, and held
against it on every family in tests/job/test_launches.py.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from tenfold.job.activations import WRITTEN_OUT_GELU
from tenfold.job.flops import attention_is_written_out
from tenfold.job.job import Job

BACKWARD_SHARE = 0.45
"""Host seconds of a launch in the backward pass beside one in the forward pass, where Python finds the operation and
autograd notes it down: mean of four families, 0.42 to 0.49 (bench/results/host_seconds.json)."""

COMPILED_BLOCK = 73.0
"""Kernels of a compiled block, forward and backward: 1,171 in two micro-batches of eight blocks, their ends among them
(bench/results/profile_llama-8b_h200_2026-11-27.json)."""

ENDS, ENDS_LEARN, MASK, CHUNK = 30.0, 22.0, 12.0, 30.0
"""Embeddings, rotary tables, final norm, head and loss, and their backward pass where they learn; a padding mask; a
chunk of the fused loss."""

UPDATE_OF_A_TENSOR = 4.0
"""On a CPU, where nothing is launched for many tensors at once: norm, clipping, update, zeroing."""

UPDATE_8BIT, UPDATE_SMALL = 47.0, 16.0
"""Of each piece of a tensor whose moments are in eight bits, and of a small tensor: run/adam8bit, counted."""

PIECE_8BIT, SMALL_8BIT = 2**22, 2**12
"""Weights of such a piece; of a tensor whose moments are not worth it."""

STORED = {"nf4": 9.0, "fp8": 3.0, "int8": 3.0}
"""To make one stored weight dense."""

READS_A_NORM = {"q", "k", "v", "qkv", "gate", "up", "gate_up"}
"""Layers of a block that read the result of a norm."""

BUCKET, VIEWS_OF_A_BUCKET = 1.0, 4.0
"""Of every attention bucket beyond the first, each way: its kernel, and ten views at 0.4 of a launch (ibid.)."""


class Launches(NamedTuple):
    """Of one pass each way."""

    forward: float
    backward: float

    def __add__(self, other: tuple[float, ...]) -> Launches:  # type: ignore[override]
        return Launches(self[0] + other[0], self[1] + other[1])


def block_launches(job: Job) -> Launches:
    """Of one block in one micro-batch, nothing recomputed."""
    shape = job.shape
    linears, adapted = len(shape.block_linears), len(job.adapted)
    biases = 0 if job.adapted else sum(x.bias for x in shape.block_linears)
    # a frozen layer passes its gradient on; one that learns makes its own, and that of its bias; an adapter eight in all
    products = Launches(linears + 2 * adapted, 8 * adapted + (linears - adapted if adapted else 2 * linears + biases))
    norm = Launches(6, 12 if job.adapted else 14) if shape.norm == "rms" else Launches(1, 1)
    activation = Launches(2, 2) if shape.gated_mlp else Launches(8, 10) if _writes_gelu(job) else Launches(1, 1)
    found = products + Launches(*(_norms(job) * each for each in norm)) + activation
    found += (10, 14) if shape.rotary else (0, 0)
    found += (3, 9) if shape.norm == "rms" else (3, 5)  # attention, sums of residuals, sums of gradients
    if shape.hidden_dropout:
        found += (2, 2) if job.machine.vendor_kind == "cuda" else (6, 2)
    if job.quantized:
        made = linears * STORED[job.stored_as or "fp8"]
        found += (made, made)
    return found + _casts(job) + _of_attention(job)


def _writes_gelu(job: Job) -> bool:
    return not job.shape.gated_mlp and job.shape.activation in WRITTEN_OUT_GELU


def _norms(job: Job) -> int:
    return (4 if job.shape.post_norms else 2) + (2 if job.shape.qk_norm else 0)


def _casts(job: Job) -> Launches:
    """What autocast and residual sums turn from one number format into the other, and gradients turn back."""
    shape = job.shape
    if job.dtype_bytes >= 4:
        return Launches(0, 0)
    reading = sum(x.name in READS_A_NORM for x in shape.block_linears)
    on_gpu = job.machine.vendor_kind == "cuda"
    found = Launches(2, 4) if on_gpu and _writes_gelu(job) else Launches(0, 0)  # the power, widened on a GPU
    if not job.adapted:  # narrow copies of weights, biases and wide residuals
        weights = sum(2 if x.bias else 1 for x in shape.block_linears)
        rotated = (2, 4) if shape.rotary else (0, 0)
        return found + (weights + reading, weights + reading + 2) + rotated
    found += (2 * len(job.adapted), 2 * len(job.adapted))
    if shape.norm == "rms":
        return found + (2 * _norms(job), 2 * _norms(job))
    if on_gpu:  # it widens a layer norm's frozen weight and bias, and, before a block, its input
        wide = 2 if shape.post_norm else 3
        found += (wide * _norms(job) + reading, reading + 2)
    return found


def _of_attention(job: Job) -> Launches:
    """Beside its kernel: masks, buckets, and all of it where no kernel drops out."""
    found = Launches(16, 15) if attention_is_written_out(job) else Launches(0, 0)
    if job.packed_tokens is not None:
        more = max(0.0, job.epoch.buckets / max(1.0, job.epoch.micro_batches) - 1)
        masks = 0.0 if job.shape.kind == "decoder" else 3.0
        each = BUCKET + VIEWS_OF_A_BUCKET
        return found + (7 + masks + more * (each + masks), 13 + more * each)
    if job.largest.masked:  # grouped keys and values are repeated for kernels that take a mask
        found += (5, 3) if job.shape.kv_heads < job.shape.heads else (3, 0)
    return found


def end_launches(job: Job) -> Launches:
    """Of all that is not in a block, in one micro-batch."""
    chunks = 0.0
    if job.loss_rows is not None:
        chunks = ceil(job.head_rows / max(1.0, job.micro_batches) / job.loss_rows)
    masked = MASK if job.packed_tokens is None and job.largest.masked else 0.0
    return Launches(ENDS + masked + CHUNK * chunks, 0.0 if job.adapted else ENDS_LEARN)


def micro_batch_launches(job: Job) -> float:
    """Of one micro-batch, forward, backward and forward again where blocks are recomputed, in launches of a forward
    pass."""
    layers, ends = job.shape.layers, end_launches(job)
    if job.compiled:
        return COMPILED_BLOCK * layers + ends.forward + BACKWARD_SHARE * ends.backward
    block = block_launches(job)
    forward = (layers + job.recomputed_layers) * block.forward + ends.forward
    return forward + BACKWARD_SHARE * (layers * block.backward + ends.backward)


def accumulating_launches(job: Job) -> float:
    """Of adding the gradients of a micro-batch to those of the one before."""
    shape = job.shape
    if job.adapted:
        return BACKWARD_SHARE * len(job.adapted) * shape.layers
    norm_tensors = _norms(job) * (1 if shape.norm == "rms" else 2)
    return BACKWARD_SHARE * shape.layers * (sum(2 if x.bias else 1 for x in shape.block_linears) + norm_tensors)


def update_launches(job: Job) -> float:
    """Of one optimizer step. On a GPU plain AdamW takes all tensors at once, in a few launches."""
    shape = job.shape
    if job.optimizer == "adamw_8bit":
        return BACKWARD_SHARE * _launches_8bit(job)  # nothing notes them down either
    tensors = 2 * len(job.adapted) * shape.layers + (4 if job.task == "classify" else 0)
    if not job.adapted:
        tensors = shape.layers * (sum(2 if x.bias else 1 for x in shape.block_linears) + 2) + 4
    return UPDATE_OF_A_TENSOR * tensors if job.machine.vendor_kind == "cpu" else UPDATE_OF_A_TENSOR


def _launches_8bit(job: Job) -> float:
    """Piece by piece of every tensor."""
    shape, rank = job.shape, job.adapter_rank
    if job.adapted:
        sizes = [rank * width for x in shape.block_linears if x.name in job.adapted
                 for width in (x.in_features, x.out_features)]  # fmt: skip
        outside = [job.task_parameters, job.row_parameters]
    else:
        sizes = [size for x in shape.block_linears
                 for size in (x.in_features * x.out_features, x.out_features if x.bias else 0)]  # fmt: skip
        sizes += [shape.hidden_size] * _norms(job)
        outside = [shape.embedding_parameters, 0 if shape.tied_embeddings else shape.head_parameters]
    return sum(map(_launches_of_a_tensor, outside)) + shape.layers * sum(map(_launches_of_a_tensor, sizes))


def _launches_of_a_tensor(weights: float) -> float:
    if not weights:
        return 0.0
    return UPDATE_SMALL if weights < SMALL_8BIT else UPDATE_8BIT * ceil(weights / PIECE_8BIT)
