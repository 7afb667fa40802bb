"""What a CPU's heap holds beside what is alive in it: glibc's, which does not shrink below what lives at its top.

Blocks from MAPPED_BYTES on are not in it. All others are, gradients included, and what one leaves another takes. But
what comes and goes beside what stays leaves holes that fit nothing that comes later: at the moment of the peak 40 to
740 MB were free in the heaps of 22 runs (mallinfo2; no file of it), the more the more one block's forward pass makes
and lets go.
"""

from __future__ import annotations

from tenfold.job.activations import FLOAT32_BYTES, WRITTEN_OUT_GELU
from tenfold.job.job import Job

MAPPED_BYTES = 32 * 2**20
"""What is larger glibc never takes from its heap, but from the system, and gives back at once: the highest that its
threshold rises to on 64-bit systems, mallopt(3), M_MMAP_THRESHOLD."""


def mapped_block_bytes(job: Job) -> float:
    """Of what a block keeps of the largest micro-batch: beyond the most that lies in the heap of any, since of several
    lengths there is one whose tensors are just not too large."""
    shape, micro, size = job.shape, job.largest, job.dtype_bytes
    wide = micro.tokens * shape.intermediate_size
    found = 0.0
    if shape.attention_dropout and job.packed_tokens is None:  # probabilities, noise and their product, written out
        found += 3 * _beyond(job, shape.heads * micro.pairs * FLOAT32_BYTES)
    if shape.gated_mlp:
        return found + 3 * _beyond(job, wide * size)
    if shape.activation in WRITTEN_OUT_GELU:
        found += 3 * _beyond(job, wide * FLOAT32_BYTES)
    return found + 2 * _beyond(job, wide * size)


def _beyond(job: Job, tensor: float) -> float:
    if len(job.workload.lengths) > 1:
        return max(0.0, tensor - MAPPED_BYTES)
    return tensor if tensor >= MAPPED_BYTES else 0.0


def heap_gradient_share(job: Job) -> float:
    """Share of the gradients whose tensors are not too large for the heap."""
    if job.adapted:
        return 1.0
    shape = job.shape
    head = shape.head_parameters if job.task != "classify" and not shape.tied_embeddings else 0
    blocks = [x.in_features * x.out_features for x in shape.block_linears] * shape.layers
    sizes = [shape.embedding_parameters, head, *blocks]
    return 1 - sum(size for size in sizes if size * job.learned_bytes >= MAPPED_BYTES) / job.trained_parameters


def passing_bytes(job: Job) -> float:
    """What a block's forward pass makes of the largest micro-batch and lets go again, operation by operation.

    On a CPU 107, 122 and 37 MB of llama, qwen3 and gpt2 at 1,024 tokens, counted by every operation's results less what
    is kept: 107, 118 and 40 here.
    """
    if job.compiled:
        return 0.0
    shape, size = job.shape, job.dtype_bytes
    hidden, query, key = shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    packed, narrow = job.packed_tokens is not None, size < FLOAT32_BYTES
    width = 4.0 * hidden * size  # what attention and the feed-forward part give, and the stream with each of them
    if shape.norm == "rms":  # squares and the normalised in float32, and that narrowed
        normed = 2 * hidden + (query + key if shape.qk_norm else 0)
        width += normed * (2 * FLOAT32_BYTES + (size if narrow else 0))
    if shape.rotary:  # by cosines; halves, turned and joined; by sines; and, where it is copied again, the sum
        width += (query + key) * size * (4.5 if packed else 3.5)
    if shape.rotary or packed:
        width += (query + key) * size
    if packed:  # values; rows gathered before they are widened; what attention gives of all buckets, wide and narrow
        width += key * size + (query + 2 * key) * (size if narrow else 0) + query * (FLOAT32_BYTES + size)
    if shape.activation in WRITTEN_OUT_GELU and not shape.gated_mlp:
        width += 4 * shape.intermediate_size * size
    return job.largest.tokens * width


def pinned_bytes(job: Job) -> float:
    """Gradients that lie among activations: made while those are held, and held while the next ones are made."""
    return job.learned_bytes * job.trained_parameters * heap_gradient_share(job) if job.accumulates else 0.0
