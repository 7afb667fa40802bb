"""What the steps of a run do, counted in units that a machine has a rate for. No machine's speed is in here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from tenfold.job.activations import FEED_FORWARD_LAYERS, FLOAT32_BYTES, touched_bytes
from tenfold.job.flops import RAGGED_TILE, attention_is_written_out, flops_by_part, frozen_flops, tiled_share
from tenfold.job.job import Job
from tenfold.job.launches import (
    accumulating_launches,
    forward_launches,
    micro_batch_launches,
    update_launches,
)
from tenfold.job.recording import of_one_length
from tenfold.workload import MicroBatch

OPTIMIZER_BYTES = {"adamw": 40, "adamw_8bit": 258, "adamw_8bit_split": 449}
"""Of a weight that learns. AdamW in float32 reads weight, gradient and two moments and writes weight and two moments:
seven times four bytes. In eight bits it is not one fused operation: reads and writes of run/adam8bit, counted operation
by operation, 246, and 443 with split weights. Before either the gradient is read for its norm, read and written to be
clipped: 12, in bfloat16 6. Compiled, it is one operation that moves 28, or 18, and computes more: it is taken to last
as long as AdamW in float32 until it is timed on a GPU."""

ACCUMULATED = 3
"""Times that the bytes of a gradient are moved to add it to the one before: two reads, one write."""

LOGIT_BYTES = {"whole": 36, "chunked": 44, "compiled": 10}
"""Reads and writes of each logit. whole, by transformers' loss: product 2, widened 6, log-softmax 8, its gradient 12,
narrowed 6, two products 2 each. chunked (rig/chunked_loss): product 4, log-sum-exp 12, softmax in place 16, narrowing
8, two products 4. compiled: product 2, sum 2, gradient 4, products 2."""

DENSE_BYTES = {"fp8": 19.0, "int8": 19.0, "nf4": 18.5}
"""Of making one weight dense, operation by operation: fp8 and int8 widened 5, scaled 8, narrowed 6; nf4 codes widened
2.5, looked up 6, scaled 8, narrowed 6, less 4 for what caches hold of the table."""

FP8_ROUNDING_BYTES = 5
"""Of rounding one bfloat16 number to fp8: read for the largest of its row, read again, written."""


@dataclass(frozen=True)
class Work:
    """Totals over a run's steps."""

    products: float = 0.0
    """FLOPs of matrix products in the working number format."""
    fp8_products: float = 0.0
    depth: float = 0.0
    """Summed dimensions of all single products, in the units of a number: what their last, half-filled waves cost."""
    operand_bytes: float = 0.0
    """Read and written by products."""
    attention: float = 0.0
    """FLOPs of attention over rows of one length, by cuDNN's kernel where it has one: above the diagonal none."""
    ragged_attention: float = 0.0
    """The same over rows of mixed lengths, by the kernels that plan nothing; packed and steady in whole tiles."""
    masked_attention: float = 0.0
    """FLOPs under a padding mask."""
    attention_tiles: float = 0.0
    """Tiles of queries of one head that are begun: by a CPU's kernel, in bfloat16; by a GPU's for mixed lengths."""
    noise: float = 0.0
    """Random numbers that a CPU draws for dropout, one after the other."""
    searches: float = 0.0
    """Numbers that a CPU seeks in a table: moments of eight bits."""
    streamed_bytes: float = 0.0
    """Of fused passes: compiled layers, the loss, casts of whole weights."""
    touched_bytes: float = 0.0
    """What eager layers keep, once forward and once backward; they move it several times over."""
    adapter_bytes: float = 0.0
    """Of the thin products of adapters."""
    dequantized_bytes: float = 0.0
    launches: float = 0.0
    """Operations that the host launches one by one, in those of a forward pass."""
    paged_bytes: float = 0.0
    """Of large tensors that a CPU's allocator gets from the system anew each time, page by page."""
    update_bytes: float = 0.0
    """Of the update, which begins once the host has seen the gradients' norm."""
    update_launches: float = 0.0
    kernels: float = 0.0
    """Operations of passes that are recorded: no host launches them, but none takes a device less than some time."""
    micro_batches: float = 0.0
    steps: float = 0.0
    tokens: float = 0.0
    """Laid out by the host."""

    def __add__(self, other: Work) -> Work:
        return Work(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Work)})


def training_work(job: Job) -> Work:
    """Of all optimizer steps."""
    shape = job.shape
    repeated = job.recomputed_layers / shape.layers
    parts = flops_by_part(job)
    attention_forward = 4.0 * job.attended_pairs * shape.heads * shape.head_dim * shape.layers
    products = sum(parts.values()) - parts["attention"] - repeated * attention_forward
    products += _uneven_products(job, parts["head"])
    fp8 = frozen_flops(job) if job.computes_fp8 else 0.0
    passes = 2 + repeated + (0 if job.adapted else 1)
    eager = not _is_compiled(job)
    touched = job.epochs_trained * touched_bytes(job, every_micro_batch(job)) * (1 + 0.5 * repeated) if eager else 0.0
    attention = _attention(job, parts["attention"] + repeated * attention_forward)
    passes_launches = job.micro_batches * micro_batch_launches(job)
    passes_launches += max(0.0, job.micro_batches - job.steps) * accumulating_launches(job)
    return Work(
        products=products - fp8,
        fp8_products=fp8,
        depth=job.micro_batches * passes * shape.layers * _depth(job),
        operand_bytes=_operand_bytes(job, job.computed_tokens, job.micro_batches, passes),
        attention_tiles=_attention_tiles(job),
        noise=_noise(job),
        searches=_searches(job),
        streamed_bytes=_streamed_bytes(job),
        touched_bytes=touched,
        adapter_bytes=_adapter_bytes(job),
        dequantized_bytes=_dequantized_bytes(job),
        paged_bytes=_paged_bytes(job),
        update_bytes=job.steps * job.trained_parameters * _optimizer_bytes(job),
        update_launches=job.steps * update_launches(job),
        launches=0.0 if job.records else passes_launches,
        kernels=passes_launches if job.records else 0.0,
        micro_batches=job.micro_batches,
        steps=job.steps,
        tokens=job.tokens_trained,
        **attention,
    )


def _optimizer_bytes(job: Job) -> int:
    return OPTIMIZER_BYTES["adamw" if job.compiled else job.optimizer]


def every_micro_batch(job: Job) -> MicroBatch:
    """All micro-batches of an epoch as one, for what grows with tokens and pairs."""
    epoch = job.epoch
    return MicroBatch(0.0, epoch.tokens, job.workload.longest, epoch.tokens, epoch.pairs, job.largest.masked)


def evaluation_work(job: Job) -> Work:
    """Of all evaluations: forward passes of the held-out rows, in micro-batches like those of training."""
    tokens = job.evaluations * job.workload.evaluation_tokens
    if not tokens:
        return Work()
    job = job.keeping(0, 0)  # nothing is kept for a backward pass, and nothing repeated
    shape, trained = job.shape, max(1.0, job.tokens_trained)
    share = tokens / trained  # of what training does; rows are sorted by length, so that next to nothing is padding
    padding = job.computed_tokens / trained
    head = 0.0 if job.task == "classify" else shape.head_parameters * job.loss_share
    forward = 2.0 * (shape.block_parameters + job.adapter_parameters + head) * tokens
    pairs = share * job.attended_pairs / padding
    attention = _attention(job, 4.0 * pairs * shape.heads * shape.head_dim * shape.layers)
    micro_batches = share * job.micro_batches
    every = MicroBatch(0.0, tokens, job.workload.longest, tokens, pairs, masked=False)
    logits = tokens * job.loss_share * shape.vocab_size if job.task != "classify" else 0.0
    return Work(
        products=forward,
        depth=micro_batches * shape.layers * _depth(job),
        operand_bytes=_operand_bytes(job, tokens, micro_batches, 1),
        streamed_bytes=logits * 8 + (tokens * _compiled_width(job)[0] if _is_compiled(job) else 0.0),
        touched_bytes=0.0 if _is_compiled(job) else 0.5 * touched_bytes(job, every),
        adapter_bytes=share * _adapter_bytes(job) / 3,
        dequantized_bytes=share * _dequantized_bytes(job) / 2,
        launches=micro_batches * forward_launches(job),
        micro_batches=micro_batches,
        steps=0.0,
        tokens=tokens,
        **attention,
    )


def _is_compiled(job: Job) -> bool:
    """Layers are compiled for real; what the formulas know of them is for gated feed-forwards and root-mean-square
    norms, and others are taken to move what eager ones do."""
    return job.compiled and job.shape.gated_mlp and job.shape.norm == "rms"


def _attention(job: Job, flops: float) -> dict[str, float]:
    """FLOPs by the kernel that does them. torch counts also what lies above the diagonal, and a CPU computes it."""
    if job.machine.vendor_kind == "cpu":
        return {"attention": flops}
    causal = job.shape.kind == "decoder"
    dense = flops * (0.5 if causal else 1.0)
    if of_one_length(job) or attention_is_written_out(job):
        return {"attention": dense}
    if job.steady:
        return {"ragged_attention": flops * tiled_share(job.workload, causal)}
    return {"ragged_attention": dense} if causal else {"masked_attention": flops}


FLOAT32_TILE = 0.25
"""What a tile costs in float32 beside one in bfloat16: 20 and 85 microseconds on one core of an AMD EPYC, forward and
backward, beyond what the same kernel takes for its FLOPs in long rows (torch 2.13, heads of 32 to 128)."""


def _attention_tiles(job: Job) -> float:
    """Of all heads, layers and rows: a GPU's in rows of mixed lengths, forward and backward; a CPU's in those of
    bfloat16, in its kernel's own sizes (FlashAttentionKernel.cpp)."""
    if job.machine.vendor_kind == "cuda":
        if not job.steady or of_one_length(job):
            return 0.0
        tiles = sum(count * ceil(length / RAGGED_TILE) for length, count in job.workload.lengths)
        return job.epochs_trained * tiles * job.shape.heads * job.shape.layers
    tokens = job.epoch.tokens
    length = job.attended_pairs / max(1.0, job.epochs_trained * tokens)
    queries = 32 if length < 192 else 64 if length < 768 else 256
    fused_narrow = job.packed_tokens is None and job.dtype_bytes < FLOAT32_BYTES and not attention_is_written_out(job)
    share = 1.0 if fused_narrow else FLOAT32_TILE
    tiles = job.epochs_trained * tokens / max(1.0, min(float(queries), length))
    return share * tiles * job.shape.heads * job.shape.layers


def _noise(job: Job) -> float:
    """Numbers drawn: of two hidden states a block and of every attention weight that is written out."""
    shape = job.shape
    if job.machine.vendor_kind != "cpu":
        return 0.0
    hidden = 2.0 * shape.hidden_size * job.computed_tokens if shape.hidden_dropout else 0.0
    weights = shape.heads * job.attended_pairs if attention_is_written_out(job) else 0.0
    return shape.layers * (hidden + weights) * (1 + job.recomputed_layers / shape.layers)


def _searches(job: Job) -> float:
    """Both moments of every weight, once a step."""
    on_cpu = job.machine.vendor_kind == "cpu" and job.optimizer != "adamw"
    return 2.0 * job.steps * job.trained_parameters if on_cpu else 0.0


UNEVEN_WIDTH, UNEVEN_FACTOR = 32, 1.27
"""A CPU's products in bfloat16 whose rows are no multiple of so many numbers, a cache line, take longer by so much: a
head of 50,257 words beside one of 32,768, forward and backward (one core of an AMD EPYC, torch 2.13)."""


def _uneven_products(job: Job, head: float) -> float:
    """What a head of uneven width costs beside its FLOPs."""
    even = job.machine.vendor_kind != "cpu" or job.dtype_bytes >= FLOAT32_BYTES
    return 0.0 if even or job.shape.vocab_size % UNEVEN_WIDTH == 0 else (UNEVEN_FACTOR - 1) * head


def _depth(job: Job) -> float:
    """Summed dimensions of the products of one block, forward; the backward ones sum over outputs, about as many."""
    return sum((x.in_features + x.out_features) / 2 for x in job.shape.block_linears)


def _operand_bytes(job: Job, tokens: float, micro_batches: float, passes: float) -> float:
    """Inputs and outputs of every product, and its weights once in each micro-batch."""
    size = job.dtype_bytes
    widths = sum(x.in_features + x.out_features for x in job.shape.block_linears) * job.shape.layers
    return passes * size * (tokens * widths + micro_batches * job.shape.block_parameters)


def _streamed_bytes(job: Job) -> float:
    shape = job.shape
    added = max(0.0, job.micro_batches - job.steps) * job.trained_parameters * ACCUMULATED * job.learned_bytes
    how = "whole" if job.loss_rows is None else "compiled" if job.compiled else "chunked"
    moved = added + job.head_rows * shape.vocab_size * LOGIT_BYTES[how]
    if not job.adapted:
        moved += job.micro_batches * _casts(job)
    if _is_compiled(job):
        forward, backward = _compiled_width(job)
        repeated = job.recomputed_layers / shape.layers
        moved += job.computed_tokens * ((1 + repeated) * forward + backward)
    return moved


LARGE_BYTES = 2**25
"""glibc maps a block of it or more afresh, however often one was freed before: DEFAULT_MMAP_THRESHOLD_MAX, malloc.c."""


def _paged_bytes(job: Job) -> float:
    """Of a run on a CPU, tensor by tensor: logits, and where all weights learn their narrow copies and gradients."""
    if job.machine.vendor_kind != "cpu":
        return 0.0
    shape, size = job.shape, job.dtype_bytes
    narrow = size < FLOAT32_BYTES
    of_logits = (size, FLOAT32_BYTES, FLOAT32_BYTES, *((size,) if narrow else ()))  # logits, wide, exponentials, narrow
    if job.loss_rows is None:  # wide, log-softmax, its gradient and that of its input
        of_logits = (size, *(FLOAT32_BYTES,) * 4, *((size,) if narrow else ()))
    micro_batches = max(1.0, job.micro_batches)
    rows = job.head_rows / micro_batches
    rows = rows if job.loss_rows is None else min(rows, job.loss_rows)
    found = job.head_rows * shape.vocab_size * _large(rows * shape.vocab_size, of_logits)
    if job.adapted:
        return found
    copied = (size, size) if narrow else ()  # the weight's copy and its gradient, in the working dtype
    weights = [shape.layers * _paged_of_a_weight(x.in_features * x.out_features, (*copied, FLOAT32_BYTES))
               for x in shape.block_linears]  # fmt: skip
    tied = (FLOAT32_BYTES,) if shape.tied_embeddings and job.task != "classify" else ()
    weights.append(_paged_of_a_weight(shape.embedding_parameters, (FLOAT32_BYTES, *tied)))
    if job.task != "classify":
        summed = (FLOAT32_BYTES,) if job.loss_rows is not None else ()  # of the chunks
        weights.append(_paged_of_a_weight(shape.head_parameters, (*copied, FLOAT32_BYTES, *summed)))
    return found + job.micro_batches * sum(weights)


def _paged_of_a_weight(weights: float, sizes: tuple[int, ...]) -> float:
    return weights * _large(weights, sizes)


def _large(numbers: float, sizes: tuple[int, ...]) -> float:
    """Of tensors of so many numbers, of these bytes a number each: a number's bytes in those that are large."""
    return float(sum(size for size in sizes if numbers * size >= LARGE_BYTES))


def _casts(job: Job) -> float:
    """Bytes that all weights cost a micro-batch where they learn: narrowed copies for products, widened gradients, the
    dense gradient of the embeddings, and the head's, which a chunked loss adds up chunk by chunk."""
    shape, size = job.shape, job.dtype_bytes
    narrowed = 0.0
    if size < job.learned_bytes:  # read and written narrow; its gradient read narrow and written wide
        narrowed = 2 * (FLOAT32_BYTES + size) * (shape.block_parameters + shape.head_parameters)
    embeddings = 4 * job.learned_bytes * shape.embedding_parameters
    chunks = 0.0
    if job.loss_rows is not None:
        rows = job.head_rows / max(1.0, job.micro_batches)
        chunks = ceil(rows / job.loss_rows) * shape.head_parameters * (2 * size + 2 * FLOAT32_BYTES)
    return narrowed + embeddings + chunks


def _compiled_width(job: Job) -> tuple[float, float]:
    """Bytes a token of one compiled pass over all blocks, (forward, backward): norms and residual sums, rotation, and
    the gated activation, each read and written once by one kernel; fp8 products also round what they read."""
    shape, size = job.shape, job.dtype_bytes
    query, key, ffn = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate_size
    stream = 8 * shape.hidden_size * (2 if shape.post_norms else 1)
    forward = stream + 2 * (query + key) * (2 if shape.qk_norm else 1) + 3 * ffn
    backward = stream + 2 * (query + key) * (2 if shape.qk_norm else 1) + 6 * ffn
    rounded_forward = rounded_backward = 0.0
    if job.computes_fp8:
        rounded_forward = FP8_ROUNDING_BYTES * (2 * shape.hidden_size + query + ffn)
        rounded_backward = FP8_ROUNDING_BYTES * sum(x.out_features for x in shape.block_linears)
    layers = shape.layers
    return layers * (forward * size + rounded_forward), layers * (backward * size + rounded_backward)


def _adapter_bytes(job: Job) -> float:
    """Inputs and outputs that the thin products read and write beside the wide ones, forward and backward.

    Eager (rig/adapter_product) each layer reads its input and adds into its output, and again for three gradients;
    merged (rig/products) an input is read once for all layers that share it, and sums join what reads them.
    """
    adapted = [x for x in job.shape.block_linears if x.name in job.adapted]
    if not adapted:
        return 0.0
    ins, outs = sum(x.in_features for x in adapted), sum(x.out_features for x in adapted)
    repeated = job.recomputed_layers / job.shape.layers
    if _is_compiled(job):
        shared = sum({_group(x.name): x.in_features for x in adapted}.values())
        width = (1 + repeated) * shared + outs + shared
    else:
        width = (1 + repeated) * (ins + 2 * outs) + 2 * outs + 3 * ins
    return job.computed_tokens * job.shape.layers * width * job.dtype_bytes


def _group(name: str) -> str:
    """Layers of a block that read one input."""
    return {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}.get(name, name)


def _dequantized_bytes(job: Job) -> float:
    """Bytes of making stored weights dense: once forward, once backward, once where repeated.

    Compiled it is one pass: the stored bytes read, the dense ones written; fp8 products turn their weights in the
    backward pass where the turned copy is not kept.
    """
    if not job.quantized:
        return 0.0
    again = 1.0 + _made_again(job)
    weights, stored = again * job.shape.block_parameters, again * job.stored_bytes
    repeated = job.recomputed_layers / job.shape.layers
    if job.keeps_ready:
        return 0.0
    if not job.compiled:
        return job.micro_batches * (2 + repeated) * weights * DENSE_BYTES[job.stored_as or "fp8"]
    if not job.computes_fp8:
        return job.micro_batches * (2 + repeated) * (stored + weights * job.dtype_bytes)
    made = 0.0 if job.stored_as == "fp8" else (2 + repeated) * (stored + weights)
    return job.micro_batches * (made + 2.0 * weights)


def _made_again(job: Job) -> float:
    """Of all frozen weights those that are made dense for every tile, times the tiles beyond the first."""
    wide = sum(x.in_features * x.out_features for x in job.shape.block_linears)
    tiled = sum(x.in_features * x.out_features for x in job.shape.block_linears if x.name in FEED_FORWARD_LAYERS)
    return (job.mlp_tiles - 1) * tiled / wide * job.recomputed_layers / job.shape.layers
