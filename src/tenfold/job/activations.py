"""What stock transformers layers keep for the backward pass, tensor by tensor.

Counted as autograd counts: a tensor that two operations save is one storage, and a view keeps its whole storage. Held
against torch.autograd.graph.saved_tensors_hooks on every family in tests/test_job.py. Widths are per token, in bytes.
"""

from __future__ import annotations

from tenfold.job.fullest import fullest_last_block_share
from tenfold.job.job import Blocks, Footprint, Job
from tenfold.workload import MicroBatch

WRITTEN_OUT_GELU = {"gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh_python"}
"""Activations that transformers computes operation by operation: they keep their input, x / 2, tanh and 1 + tanh."""

FIRST_LAYERS = {"q", "k", "v", "qkv"}
"""Linear layers that read the embeddings in the first block: where those are frozen, no gradient goes below them."""

READS_SECOND_NORM = {"gate", "up", "gate_up"}

FEED_FORWARD_LAYERS = READS_SECOND_NORM | {"down"}

LAST_LAYERS = {"o"} | FEED_FORWARD_LAYERS
"""Linear layers of a block that come after its attention."""

FLOAT32_BYTES = 4


def footprint(job: Job, micro: MicroBatch) -> Footprint:
    """Of this micro-batch, logits left out; counted once."""
    found = job.footprints.get(micro)
    if found is None:
        found = job.footprints[micro] = _counted(job, micro)
    return found


def _counted(job: Job, micro: MicroBatch) -> Footprint:
    saving, extra = last_block_saving(job, micro)
    return Footprint(
        block=block_bytes(job, micro),
        input=input_bytes(job, micro),
        first_saving=first_block_saving(job, micro),
        last_saving=saving,
        last_extra=extra,
        end=end_bytes(job, micro),
    )


def kept_bytes(job: Job, micro: MicroBatch) -> float:
    """All that the device keeps of a micro-batch between its forward and its backward pass, logits left out."""
    return footprint(job, micro).on_device(job.blocks)


def touched_bytes(job: Job, micro: MicroBatch) -> float:
    """What it would keep with nothing recomputed: also what it reads and writes a few times over on the way."""
    return footprint(job, micro).on_device(Blocks.of(job.shape.layers, 0, 0))


def block_bytes(job: Job, micro: MicroBatch) -> float:
    """What one block keeps of a micro-batch."""
    if _is_lean(job):
        return micro.tokens * _lean_width(job) * job.machine.overheads.compiled_kept
    return micro.tokens * (_first_width(job) + _last_width(job)) + _attention_bytes(job, micro)


def last_block_saving(job: Job, micro: MicroBatch) -> tuple[float, float]:
    """What the last block keeps less because it leaves out tokens without loss (negative where the rows that it picked
    are kept beside all of them); and what it keeps more once it is recomputed, of which it needs its whole input."""
    share = fullest_last_block_share(job) if micro == job.largest else job.last_block_share
    size = job.dtype_bytes
    if share == 1.0:
        return 0.0, 0.0
    extra = share * input_bytes(job, micro)
    query = job.shape.heads * job.shape.head_dim
    saved = (1 - share) * _last_width(job)
    if _keeps_input(job, {"q"}):
        own = _keeps_copies(job) or not _keeps_input(job, {"k", "v"})
        saved += (1 - share if own else -share) * job.shape.hidden_size * size
    if "q" in job.adapted:
        saved += (1 - share) * _adapter_bytes(job, {"q"})
    if _keeps_input(job, {"o"}):
        saved += (1 - share if _copies_output(job) else -share) * query * _attention_size(job)
    return micro.tokens * saved, extra


def _is_lean(job: Job) -> bool:
    """Compiled, and with frozen weights: kept is what no cheap operation can make again from what else is kept.

    rig/compiling.py lets the compiler recompute the rest, and tests/rig/test_compiling.py counts it.
    """
    known = job.shape.gated_mlp and job.shape.norm == "rms" and not job.adapter_dropout
    return job.compiled and bool(job.adapted) and known


def _lean_width(job: Job) -> float:
    """The inputs of the norms; queries, keys, values, output and log-sum-exp of attention; gate and up; A x of each
    adapter."""
    shape = job.shape
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    stream = (4 if shape.post_norms else 2) * shape.hidden_size
    normed = query + key if shape.qk_norm else 0
    thin = _thin_width(job, FIRST_LAYERS | LAST_LAYERS)
    width = stream + 2 * query + 2 * key + normed + 2 * shape.intermediate_size + thin
    return width * job.dtype_bytes + (shape.heads + 2) * FLOAT32_BYTES


def _first_width(job: Job) -> float:
    """Up to attention: the first norm, the inputs of queries, keys and values, and their adapters."""
    shape = job.shape
    norms = _norm_bytes(job)
    if shape.qk_norm:
        copies = 1 if job.adapted else 2
        heads = shape.heads + shape.kv_heads
        norms += (copies * heads * shape.head_dim + heads) * FLOAT32_BYTES
    return norms + _linear_input_bytes(job, FIRST_LAYERS) + _adapter_bytes(job, FIRST_LAYERS)


def _last_width(job: Job) -> float:
    """After attention: the other norms, the feed-forward part, its adapters and those of the output projection."""
    norms = (3 if job.shape.post_norms else 1) * _norm_bytes(job)
    return norms + _feed_forward_width(job) + _adapter_bytes(job, {"o"}) + _dropout_bytes(job)


def _feed_forward_width(job: Job) -> float:
    """Of the feed-forward part: what its layers and its activation keep."""
    inputs = _linear_input_bytes(job, READS_SECOND_NORM) + _linear_input_bytes(job, {"down"})
    return inputs + _mlp_bytes(job) + _adapter_bytes(job, FEED_FORWARD_LAYERS)


def feed_forward_bytes(job: Job, micro: MicroBatch) -> float:
    """What a block keeps of its feed-forward part, compiled or not."""
    if _is_lean(job):
        width = (2 * job.shape.intermediate_size + _thin_width(job, FEED_FORWARD_LAYERS)) * job.dtype_bytes
        return micro.tokens * width * job.machine.overheads.compiled_kept
    return micro.tokens * _feed_forward_width(job)


def input_bytes(job: Job, micro: MicroBatch) -> float:
    """What a recomputed block keeps: its input."""
    return micro.tokens * job.shape.hidden_size * _stream_size(job)


def first_block_saving(job: Job, micro: MicroBatch) -> float:
    """What the first block does not keep where embeddings are frozen, since no gradient goes below it: the input of its
    first norm, and what dropout drew for the adapters that read it."""
    if job.passes_below_blocks:
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
        width += hidden * (FLOAT32_BYTES + (normed_size(job) if shape.norm == "rms" else 0))
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
    """Bytes of a number in the residual stream: that of the weights that make it; a layer norm that ends the block
    makes it float32 under autocast on a GPU."""
    widened = job.shape.post_norm and job.shape.norm == "layer" and job.machine.vendor_kind == "cuda"
    return FLOAT32_BYTES if widened or not (job.adapted or job.splits_weights) else job.dtype_bytes


def norm_size(job: Job) -> int:
    """Bytes of a number in a layer norm: autocast widens it on a GPU, and leaves it as it comes on a CPU."""
    return _stream_size(job) if job.shape.norm == "layer" and job.machine.vendor_kind == "cpu" else FLOAT32_BYTES


def normed_size(job: Job) -> int:
    """Bytes of a number that a root-mean-square norm keeps for the gradient of its own weight: its result before that,
    in the format of its input."""
    return 0 if job.adapted else _stream_size(job)


def _norm_bytes(job: Job) -> float:
    """Of one norm, in float32 under autocast too; its result before the weight is kept where that learns."""
    if job.shape.norm == "layer":
        return job.shape.hidden_size * norm_size(job) + 2 * FLOAT32_BYTES  # input, mean, 1 / deviation
    return job.shape.hidden_size * (FLOAT32_BYTES + normed_size(job)) + FLOAT32_BYTES


def _linear_input_bytes(job: Job, group: set[str]) -> float:
    """The input that these linear layers share, once unless each has a copy; a frozen layer without adapter keeps
    none."""
    reading = [x.in_features for x in job.shape.block_linears if x.name in group and _keeps_input(job, {x.name})]
    return sum(reading if _keeps_copies(job) else reading[:1]) * job.dtype_bytes


def _keeps_copies(job: Job) -> bool:
    """Where autocast narrows the float32 result of a norm, every layer that reads it keeps a copy of its own."""
    return job.dtype_bytes < FLOAT32_BYTES and (job.shape.norm == "layer" or not job.adapted)


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


def _adapter_bytes(job: Job, names: set[str]) -> float:
    """A x of the adapters on these layers; with dropout also the dropped input and what was drawn."""
    width = _thin_width(job, names) * job.dtype_bytes
    if job.adapter_dropout:
        adapted = [x for x in job.shape.block_linears if x.name in names and x.name in job.adapted]
        inputs = sum(linear.in_features for linear in adapted)
        width += inputs * job.dtype_bytes + _mask_size(job) * inputs
    return width


def _thin_width(job: Job, names: set[str]) -> int:
    return job.adapter_rank * sum(x.name in names and x.name in job.adapted for x in job.shape.block_linears)


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
        # No fused kernel drops out on a CPU: copies of q, k and v, then probabilities, noise and their product, all in
        # float32 (torch's scaled_dot_product_attention written out).
        probabilities = 3 * shape.heads * micro.pairs * FLOAT32_BYTES
        output = query * micro.tokens * size if _keeps_input(job, {"o"}) else 0
        return 3 * query * micro.cells * FLOAT32_BYTES + output + probabilities
    size = _attention_size(job)
    if packed:
        width = query + 2 * key
        output = query * micro.cells + (query * micro.tokens if _keeps_input(job, {"o"}) else 0)
    else:
        width = _query_key_value_width(job, query, key, key_used, fused)
        output = (2 if _copies_output(job) and _keeps_input(job, {"o"}) else 1) * query * micro.cells
    statistics = shape.heads * micro.cells * FLOAT32_BYTES
    return (width * micro.cells + output) * size + statistics + mask


def _attention_size(job: Job) -> int:
    """Bytes of a number that attention keeps: on a CPU rig/segments computes in float32."""
    on_cpu = job.packed_tokens is not None and job.machine.vendor_kind == "cpu"
    return FLOAT32_BYTES if on_cpu else job.dtype_bytes


def _copies_output(job: Job) -> bool:
    """Whether the output projection reads a copy of what attention gives, and keeps it beside."""
    written_out = bool(job.shape.attention_dropout) and job.machine.vendor_kind == "cpu"
    return job.packed_tokens is not None or written_out or job.shape.model_type == "phi3"


def _query_key_value_width(job: Job, query: int, key: int, key_used: int, fused: bool) -> int:
    """Numbers per token of queries, keys and values; a value that is a view keeps the whole fused projection alive."""
    if not fused:
        return query + 2 * key_used
    if not job.shape.rotary:
        return query + 2 * key
    values = key_used if key_used != key else query + 2 * key
    return query + key_used + values
