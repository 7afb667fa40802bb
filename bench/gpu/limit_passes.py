"""What a step reads and writes beside its products, at least: bytes by formula, to be timed as plain copies.

Every pass is taken to be fused as far as one pass can be: it reads each of its inputs once and writes each of its
results once, in bfloat16, or in fp8 where only a product reads them, whose row scales are known once a row has been
read. What products and attention read and write themselves is in their own time. Left out, because it is below one
per cent or differs from engine to engine: embedding, final norm, scales, the adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from limit_products import Call, Widths

UPDATE_BYTES = {"adamw in bf16": 14, "adamw_8bit_split": 12, "adamw in float32": 28}
"""Of one pass over a weight that learns, its gradient among them: reads and writes of bfloat16 weight, gradient and two
moments (8 + 6); of a bfloat16 weight and 8 bits more, bfloat16 gradient and moments of 8 bits (7 + 5); all in float32
(16 + 12)."""

BUFFER_BYTES = {"cpu": 2**22, "cuda": 2**30}
"""Of what is copied: well beyond what caches hold."""


def block_bytes(config: dict[str, Any], kind: str) -> int:
    """Of one token in one block, forward and backward; d hidden, f inner, q queries, k keys.

    bf16, forward: addition and norm, twice: read both sides, write sum and norm, 2 x 8 d; rotation 4 (q + k);
    activation 6 f. Backward: activation 10 f; norm and addition, twice, 2 x 8 d; rotation 4 (q + k).

    fp8, forward: norms write one byte, 2 x 7 d; rotation 4 (q + k); attention's result is rounded, 3 q; activation 5 f.
    Backward: activation 8 f; the sum's gradient is written in fp8 as well, 2 x 9 d; rotation and rounding of q, k and v
    in one pass, 3 (q + 2 k).

    Norms of queries and keys join the rotation, whose backward pass then reads what they read: 2 (q + k) more.
    """
    w = Widths.of(config)
    d, f, q, k = w.hidden, w.inner, w.queries, w.keys
    normed = 2 * (q + k) if config["model_type"] == "qwen3" else 0
    if kind == "fp8":
        return 32 * d + 4 * (q + k) + 3 * q + 3 * (q + 2 * k) + 13 * f + normed
    return 32 * d + 8 * (q + k) + 16 * f + normed


def adapter_bytes(config: dict[str, Any], kind: str) -> int:
    """Of one token in one block, where the thin products of adapters are passes of their own, at least: each reads its
    wide operand once and what it makes is not counted.

    Forward and for A the input of each merged product, for B and the gradient towards A its output's: 2 (2 in + out).
    fp8: that norms, activation and its gradient are also written in bfloat16, for the adapters alone: 4 d + 6 f.
    """
    w = Widths.of(config)
    found = 2 * sum(2 * into + out for out, into in w.merged)
    return found + (4 * w.hidden + 6 * w.inner if kind == "fp8" else 0)


def loss_bytes(config: dict[str, Any]) -> int:
    """Of one token that bears loss: its logits read, their gradient written, in bfloat16."""
    return 4 * config["vocab_size"]


class Copies:
    """Plain copies of any number of bytes, in pieces of one buffer."""

    def __init__(self, device: str) -> None:
        numbers = BUFFER_BYTES["cpu" if device == "cpu" else "cuda"] // 2
        self._source = torch.randn(numbers, device=device, dtype=torch.bfloat16)
        self._target = torch.empty_like(self._source)

    @property
    def most_bytes(self) -> int:
        """Read and written by one copy of the whole buffer."""
        return 4 * self._source.numel()

    def calls(self, moved_bytes: float) -> list[Call]:
        """Copies that read and write so many bytes together."""
        whole, rest = divmod(round(moved_bytes), self.most_bytes)
        sizes = [self._source.numel()] * whole + ([rest // 4] if rest >= 4 else [])
        return [lambda size=size: self._target[:size].copy_(self._source[:size]) for size in sizes]


def fused_update(config: dict[str, Any], dtype: torch.dtype, device: str) -> tuple[Call, int]:
    """torch's fused AdamW over the weights of one block, and how many these are."""
    weights = [torch.randn(size, device=device, dtype=dtype) for size in Widths.of(config).merged]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    return optimizer.step, sum(weight.numel() for weight in weights)
