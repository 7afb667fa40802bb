"""How many operations the host launches, one by one, in eager mode. Views are free, and what a kernel does is one.

Counted on stock transformers layers by a dispatch mode as training runs them, autocast's casts included, and held
against it on every family in tests/job/test_launches.py.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from tenfold.job.activations import WRITTEN_OUT_GELU
from tenfold.job.flops import attention_is_written_out
from tenfold.job.job import Job
from tenfold.shape import Shape

BACKWARD_SHARE = 0.5
"""Host seconds of a launch in the backward pass beside one in the forward pass, where Python finds the operation and
autograd notes it down: mean of four families, 0.43 to 0.58 (bench/results/host_seconds.json)."""

COMPILED_BLOCK = 73.0
"""Kernels of a compiled block, forward and backward: 1,171 in two micro-batches of eight blocks, their ends among them
(bench/results/profile_llama-8b_h200_2026-11-27.json)."""

ENDS, ENDS_LEARN, MASK, CHUNK = 30.0, 22.0, 12.0, 30.0
"""Embeddings, rotary tables, final norm, head and loss, and their backward pass where they learn; a padding mask; a
chunk of the fused loss."""

UPDATE_OF_A_TENSOR = 4.0
"""On a CPU, where nothing is launched for many tensors at once: norm, clipping, update, zeroing."""

UPDATE_TOGETHER = 0.3
"""Of each tensor on a GPU, where all are updated by a few kernels: what Python and torch do before these are launched.
8.3 microseconds on one core of an AMD EPYC (norm 3.4, update 4.4, gradients dropped 0.5; 448 tensors, torch 2.13), on
which a launch is taken to be 13; one on a GPU costs the driver's call as well, about as much again."""

UPDATE_8BIT, UPDATE_SMALL, SPLIT = 45.0, 14.0, 21.0
"""Of each piece of a tensor whose moments are in eight bits, of a small tensor, and more of a piece whose weight is
split: run/adam8bit, counted."""

UPDATE_COMPILED = 30.0
"""Of a tensor whose update is compiled: 0.15 ms of the host for guards and views, in launches of 5 microseconds. Timed
on one core of an AMD EPYC, not on a GPU's host."""

PIECE_8BIT, SMALL_8BIT = 2**22, 2**12
"""Weights of such a piece; of a tensor whose moments are not worth it."""

STORED = {"nf4": 9.0, "fp8": 3.0, "int8": 3.0}
"""To make one stored weight dense."""

ATTENTION_CALL = 16.0
"""What Python does around attention in a forward pass, in launches: it takes as long as 26 to 38 of the shortest
operations on a CPU, and a launch on a GPU costs the driver's call as well, about as much again (ibid.)."""

READS_A_NORM = {"q", "k", "v", "qkv", "gate", "up", "gate_up"}
"""Layers of a block that read the result of a norm."""

BUCKET, VIEWS_OF_A_BUCKET = 1.0, 4.0
"""Of every attention bucket beyond the first, each way: its kernel, and ten views at 0.4 of a launch (ibid.)."""


class _HowUpdated(NamedTuple):
    compiled: bool
    splits: bool


class Launches(NamedTuple):
    """Of one pass each way."""

    forward: float
    backward: float

    def __add__(self, other: tuple[float, ...]) -> Launches:  # type: ignore[override]
        return Launches(self[0] + other[0], self[1] + other[1])


def block_launches(job: Job) -> Launches:
    """Of one block in one micro-batch, nothing recomputed."""
    stored_as = (job.stored_as or "fp8") if job.quantized else None
    layers = _layers_launches(job.shape, job.adapted, stored_as, job.dtype_bytes < 4, job.machine.vendor_kind)
    return layers + _of_attention(job)


@lru_cache(maxsize=512)
def _layers_launches(
    shape: Shape, adapted: tuple[str, ...], stored_as: str | None, narrow: bool, vendor_kind: str
) -> Launches:
    """Of a block's layers, whatever attention they have."""
    linears = len(shape.block_linears)
    biases = 0 if adapted else sum(x.bias for x in shape.block_linears)
    # a frozen layer passes its gradient on, one that learns makes its own and its bias's; with an adapter it is eight
    frozen = linears - len(adapted) if adapted else 2 * linears + biases
    found = Launches(linears + 2 * len(adapted), 8 * len(adapted) + frozen)
    norm = (6, 12 if adapted else 14) if shape.norm == "rms" else (1, 1)
    found += (_norms(shape) * norm[0], _norms(shape) * norm[1])
    found += (2, 2) if shape.gated_mlp else (8, 10) if _writes_gelu(shape) else (1, 1)
    found += (10, 14) if shape.rotary else (0, 0)
    found += (3, 9) if shape.norm == "rms" else (3, 5)  # attention, sums of residuals, sums of gradients
    if shape.hidden_dropout:
        found += (2, 2) if vendor_kind == "cuda" else (6, 2)
    if stored_as is not None:
        found += (linears * STORED[stored_as], linears * STORED[stored_as])
    return found + _casts(shape, adapted, vendor_kind == "cuda") if narrow else found


def _writes_gelu(shape: Shape) -> bool:
    return not shape.gated_mlp and shape.activation in WRITTEN_OUT_GELU


def _norms(shape: Shape) -> int:
    return (4 if shape.post_norms else 2) + (2 if shape.qk_norm else 0)


def _casts(shape: Shape, adapted: tuple[str, ...], on_gpu: bool) -> Launches:
    """What autocast and residual sums turn from one number format into the other, and gradients turn back."""
    reading = sum(x.name in READS_A_NORM for x in shape.block_linears)
    found = Launches(2, 4) if on_gpu and _writes_gelu(shape) else Launches(0, 0)  # the power, widened on a GPU
    if not adapted:  # narrow copies of weights, biases and wide residuals
        weights = sum(2 if x.bias else 1 for x in shape.block_linears)
        found += (weights + reading, weights + reading + 2)
        found += (2, 4) if shape.rotary else (0, 0)
        return found
    found += (2 * len(adapted), 2 * len(adapted))
    if shape.norm == "rms":
        found += (2 * _norms(shape), 2 * _norms(shape))
    elif on_gpu:  # it widens a layer norm's frozen weight and bias, and, before a block, its input
        found += ((2 if shape.post_norm else 3) * _norms(shape) + reading, reading + 2)
    return found


def _of_attention(job: Job) -> Launches:
    """Beside its kernel: masks, buckets, and all of it where no kernel drops out."""
    found = Launches(16, 15) if attention_is_written_out(job) else Launches(0, 0)
    if job.packed_tokens is not None:
        more = max(0.0, job.epoch.buckets / max(1.0, job.epoch.micro_batches) - 1)
        masks = 0.0 if job.shape.kind == "decoder" else 3.0
        each = BUCKET + VIEWS_OF_A_BUCKET
        return found + Launches(7 + masks + more * (each + masks), 13 + more * each)
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


def forward_launches(job: Job) -> float:
    """Of a forward pass of one micro-batch."""
    if job.compiled:
        return COMPILED_BLOCK / 3 * job.shape.layers + end_launches(job).forward
    return (block_launches(job).forward + ATTENTION_CALL) * job.shape.layers + end_launches(job).forward


def micro_batch_launches(job: Job) -> float:
    """Of one micro-batch, forward, backward and forward again where blocks are recomputed, in launches of a forward
    pass."""
    layers, ends = job.shape.layers, end_launches(job)
    if job.compiled:
        again = COMPILED_BLOCK / 3 * job.recomputed_layers
        return COMPILED_BLOCK * layers + again + ends.forward + BACKWARD_SHARE * ends.backward
    block = block_launches(job)
    forward = forward_launches(job) + job.recomputed_layers * (block.forward + ATTENTION_CALL)
    return forward + BACKWARD_SHARE * (layers * block.backward + ends.backward)


def accumulating_launches(job: Job) -> float:
    """Of adding the gradients of a micro-batch to those of the one before."""
    shape = job.shape
    if job.adapted:
        return BACKWARD_SHARE * len(job.adapted) * shape.layers
    norm_tensors = _norms(shape) * (1 if shape.norm == "rms" else 2)
    return BACKWARD_SHARE * shape.layers * (sum(2 if x.bias else 1 for x in shape.block_linears) + norm_tensors)


def update_launches(job: Job) -> float:
    """Of one optimizer step. On a GPU plain AdamW takes all tensors at once, in a few launches."""
    shape = job.shape
    if job.optimizer != "adamw":
        return BACKWARD_SHARE * _launches_8bit(job)  # nothing notes them down either
    tensors = 2 * len(job.adapted) * shape.layers + (4 if job.task == "classify" else 0)
    if not job.adapted:
        tensors = shape.layers * (sum(2 if x.bias else 1 for x in shape.block_linears) + 2) + 4
    if job.machine.vendor_kind == "cpu":
        return UPDATE_OF_A_TENSOR * tensors
    return UPDATE_OF_A_TENSOR + UPDATE_TOGETHER * tensors


def _launches_8bit(job: Job) -> float:
    """Piece by piece of every tensor."""
    shape = job.shape
    if job.adapted:
        outside = (job.task_parameters, job.row_parameters)
    else:
        outside = (shape.embedding_parameters, 0 if shape.tied_embeddings else shape.head_parameters)
    how = _HowUpdated(job.compiled, job.splits_weights)
    found = sum(_launches_of_a_tensor(weights, how) for weights in outside)
    return found + _block_launches_8bit(shape, job.adapted, job.adapter_rank, how)


@lru_cache(maxsize=512)
def _block_launches_8bit(shape: Shape, adapted: tuple[str, ...], rank: int, how: _HowUpdated) -> float:
    """Of all blocks."""
    if adapted:
        wide = [x for x in shape.block_linears if x.name in adapted]
        sizes = [rank * width for x in wide for width in (x.in_features, x.out_features)]
    else:
        sizes = [x.in_features * x.out_features for x in shape.block_linears]
        sizes += [x.out_features for x in shape.block_linears if x.bias]
        sizes += [shape.hidden_size] * _norms(shape)
    return shape.layers * sum(_launches_of_a_tensor(weights, how) for weights in sizes)


def _launches_of_a_tensor(weights: float, how: _HowUpdated) -> float:
    if not weights:
        return 0.0
    if weights < SMALL_8BIT:
        return UPDATE_SMALL
    piece = UPDATE_8BIT + (SPLIT if how.splits else 0.0)
    return UPDATE_COMPILED if how.compiled else piece * ceil(weights / PIECE_8BIT)
