"""FLOPs of the whole run, by part. A multiply-add is two."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from tenfold.job.activations import FIRST_LAYERS
from tenfold.job.job import Job
from tenfold.shape.families import LinearShape
from tenfold.workload import Workload

KEY_LAYERS = {"k", "v", "qkv"}
"""Linear layers that see every token in the last block too (rig/last_block)."""


def flops_by_part(job: Job) -> dict[str, float]:
    """FLOPs over all steps. Attention counts every query-key pair, as torch's counter does, also above the diagonal."""
    shape, tokens, pairs = job.shape, job.computed_tokens, job.attended_pairs
    width = shape.heads * shape.head_dim
    through = 2.0 * shape.block_parameters * tokens
    attention = 4.0 * pairs * width * shape.layers
    head = 2.0 * shape.head_parameters * job.head_rows
    adapters = 2.0 * job.adapter_parameters * tokens
    repeated = job.recomputed_layers / shape.layers
    left_out = tokens * (1.0 - job.last_block_share)
    narrowed = through - 2.0 * left_out * _last_block_weights(job)
    thin = adapters - 2.0 * left_out * _last_block_adapters(job)
    again = repeated * (through + attention + adapters) - 2.0 * job.recomputed_layers * _not_repeated(job) * tokens
    if job.blocks.last_is_recomputed:
        again -= (through - narrowed) + (adapters - thin) - 2.0 * left_out * _not_repeated(job)
    return {
        "linear forward": narrowed,
        "input gradients": narrowed - 2.0 * _without_input_gradient(job) * tokens,
        "weight gradients": 2.0 * job.full_block_parameters * tokens if job.adapted else narrowed,
        "attention": attention * (3.0 if attention_is_written_out(job) else 3.5),
        "head": head * 2 + 2.0 * job.learned_head_parameters * job.head_rows if job.adapted else head * 3,
        "adapters": 3 * thin - 2.0 * _thin_without_input_gradient(job) * tokens,
        "recompute": again,
    }


RAGGED_TILE = 128
"""Queries and keys of a tile of the variable-length kernel on a GPU, all of which it computes: torch's
flash_fwd_launch_template.h and flash_bwd_launch_template.h; heads of 128 have half as many of one of the two."""


@lru_cache(maxsize=1024)
def tiled_share(workload: Workload, causal: bool) -> float:
    """What the tiles of all rows come to beside their query-key pairs, above the diagonal too: of long rows half of
    them where attention is causal, of short ones more than all."""
    tiled = pairs = 0.0
    for length, count in workload.lengths:
        tiles = ceil(length / RAGGED_TILE)
        tiled += count * RAGGED_TILE**2 * (tiles * (tiles + 1) / 2 if causal else tiles**2)
        pairs += count * length**2
    return tiled / pairs


def frozen_flops(job: Job) -> float:
    """Those of `flops_by_part` that multiply by frozen weights of the blocks, forward, backward and repeated."""
    if not job.adapted:
        return 0.0
    parts = flops_by_part(job)
    again = 2.0 * job.recomputed_layers / job.shape.layers * job.shape.block_parameters * job.computed_tokens
    return parts["linear forward"] + parts["input gradients"] + min(again, parts["recompute"])


def _narrowed_linears(job: Job) -> list[LinearShape]:
    """The layers of the last block that see only rows with loss."""
    return [x for x in job.shape.block_linears if x.name not in KEY_LAYERS]


def _last_block_weights(job: Job) -> int:
    return sum(x.in_features * x.out_features for x in _narrowed_linears(job))


def _last_block_adapters(job: Job) -> int:
    adapted = [x for x in _narrowed_linears(job) if x.name in job.adapted]
    return sum(job.adapter_rank * (x.in_features + x.out_features) for x in adapted)


def attention_is_written_out(job: Job) -> bool:
    """Two products forward and four backward; the fused kernels repeat one of the forward ones, which makes five."""
    return bool(job.shape.attention_dropout) and job.machine.vendor_kind == "cpu"


def _without_input_gradient(job: Job) -> int:
    """Frozen weights that no gradient passes on its way down."""
    if job.passes_below_blocks:
        return 0
    return sum(x.in_features * x.out_features for x in job.shape.block_linears if x.name in FIRST_LAYERS)


def _thin_without_input_gradient(job: Job) -> int:
    if job.passes_below_blocks:
        return 0
    return sum(
        job.adapter_rank * x.in_features
        for x in job.shape.block_linears
        if x.name in FIRST_LAYERS and x.name in job.adapted
    )


def _not_repeated(job: Job) -> int:
    """Weights of a block's last product, which recomputation stops before: the backward pass does not need its result.

    Not so where a norm or a dropout follows it, or where the base's product comes before an adapter that is needed.
    """
    shape = job.shape
    if shape.post_norm or shape.post_norms or shape.hidden_dropout:
        return 0
    last = shape.block_linears[-1]
    if last.name in job.adapted:
        return job.adapter_rank * last.out_features
    return last.in_features * last.out_features
