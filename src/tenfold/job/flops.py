"""FLOPs of the whole run, by part. A multiply-add is two."""

from __future__ import annotations

from tenfold.job.job import Job


def flops_by_part(job: Job) -> dict[str, float]:
    """FLOPs over all steps. Attention counts every query-key pair, as torch's counter does, also above the diagonal."""
    shape, tokens, pairs = job.shape, job.computed_tokens, job.attended_pairs
    width = shape.heads * shape.head_dim
    through = 2.0 * shape.block_parameters * tokens
    forward_attention = 4.0 * pairs * width * shape.layers
    head = 2.0 * shape.head_parameters * job.head_rows
    adapters = 2.0 * job.adapter_parameters * tokens
    repeated = job.recomputed_layers / shape.layers
    return {
        "linear forward": through,
        "input gradients": through,
        "weight gradients": 0.0 if job.adapted else through,
        "attention": 3.5 * forward_attention,  # flash attention: two products forward, five backward
        "head": head * (2 if job.adapted else 3),
        "adapters": 3 * adapters,
        "recompute": repeated * (through + forward_attention + adapters),
    }


def evaluation_flops(job: Job) -> float:
    """FLOPs of all evaluations: forward passes only."""
    tokens = job.evaluations * job.workload.evaluation_tokens
    head = 0 if job.task == "classify" else job.shape.head_parameters * job.loss_share
    return 2.0 * (job.shape.block_parameters + job.adapter_parameters + head) * tokens
