"""The wide products and the attention of one block and of one chunk of the head, as calls to be timed.

Random numbers in the sizes of a step, merged as the engine merges them (q, k, v; gate and up), by the kernels that it
picks. A call computes and drops its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]

PASSES = {"lora": 2, "full": 3}
"""Products of each weight: forward, for the gradient of its input and, where it learns, for its own."""


@dataclass(frozen=True)
class Widths:
    """Of a shape's linear layers."""

    hidden: int
    inner: int
    queries: int
    keys: int
    """Of the keys, and of the values."""
    vocabulary: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Widths:
        """From a shape of shapes.py."""
        head = config["head_dim"]
        queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
        return cls(config["hidden_size"], config["intermediate_size"], queries, keys, config["vocab_size"])

    @property
    def merged(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of the products of a block: q, k, v; output; gate, up; down."""
        both = self.queries + 2 * self.keys
        return (
            (both, self.hidden),
            (self.hidden, self.queries),
            (2 * self.inner, self.hidden),
            (self.hidden, self.inner),
        )


def random(device: str, *size: int) -> torch.Tensor:
    """bfloat16. Never zeros or constants: operands that do not toggle draw less power and run faster."""
    return torch.randn(size, device=device, dtype=torch.bfloat16)


def block_products(widths: Widths, tokens: int, kind: str, train: str, device: str) -> list[Call]:
    """The products of one block in `kind` (bf16 or fp8), forward and backward."""
    return [call for out, into in widths.merged for call in _both_ways(tokens, out, into, kind, train, device)]


def head_products(widths: Widths, rows: int, kind: str, train: str, device: str) -> list[Call]:
    """The products of so many rows of logits, forward and backward."""
    return _both_ways(rows, widths.vocabulary, widths.hidden, kind, train, device)


def _both_ways(tokens: int, out: int, into: int, kind: str, train: str, device: str) -> list[Call]:
    x, dy, weight = random(device, tokens, into), random(device, tokens, out), random(device, out, into)
    if kind == "fp8":
        return [_scaled(x, weight), _scaled(dy, weight.t().contiguous())]
    calls: list[Call] = [lambda: x @ weight.t(), lambda: dy @ weight]
    return [*calls, lambda: dy.t() @ x] if PASSES[train] == 3 else calls


def _scaled(x: torch.Tensor, weight: torch.Tensor) -> Call:
    """x [T, K] times weight [N, K] transposed, both in fp8 with a scale per row, as rig/operands.py does."""
    from tenfold.rig.operands import fp8_rows, scaled_product

    narrow, scale = fp8_rows(x)
    codes, scales = fp8_rows(weight)
    return lambda: scaled_product(narrow, scale, codes, scales.flatten())


def blocks_worth(widths: Widths, layers: int, loss_share: float, train: str) -> float:
    """Of how many whole blocks a step needs the products.

    In the last block only rows with loss need more than keys and values, both ways. Where the embedding does not learn,
    the first needs no gradient of its input.
    """
    sizes = [out * into for out, into in widths.merged]
    whole = PASSES[train] * sum(sizes)
    spared = PASSES[train] * (1 - loss_share) * (sum(sizes) - 2 * widths.keys * widths.hidden)
    return layers - (spared + (sizes[0] if train == "lora" else 0)) / whole


def full_attention(config: dict[str, Any], rows: int, length: int, device: str) -> list[Call]:
    """Causal attention of one block over rows of one length, both ways, by cuDNN as the engine has it on Hopper."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, shared, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    q, k, v = (random(device, rows, count, length, size).requires_grad_() for count in (heads, shared, shared))
    grad = random(device, rows, heads, length, size)
    kernel = SDPBackend.MATH if device == "cpu" else SDPBackend.CUDNN_ATTENTION

    def both() -> None:
        with sdpa_kernel(kernel):
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        torch.autograd.grad(out, (q, k, v), grad)

    return [both]


def packed_attention(config: dict[str, Any], lengths: Sequence[int], device: str) -> list[Call]:
    """Causal attention of one block over rows of these lengths end to end, both ways, by the engine's own function.

    Laid out as the variable-length kernel wants it, so that nothing is copied on the way in.
    """
    from tenfold.rig.ragged import attend_ragged, ragged_rows
    from tenfold.rig.segments import attend_segments, segment_rows

    heads, shared, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    longest_first = sorted(lengths, reverse=True)  # as rig/packing lays them
    tokens = sum(lengths)
    q, k, v = (random(device, tokens, count, size).requires_grad_() for count in (heads, shared, shared))
    grad = random(device, 1, tokens, heads, size)
    ragged, segments = ragged_rows(longest_first).to(torch.device(device)), segment_rows(longest_first)

    def both() -> None:
        states = [state.transpose(0, 1)[None] for state in (q, k, v)]
        if device == "cpu":
            out = attend_segments(*states, segments, causal=True, scaling=None, window=None, dropout=0.0)
        else:
            out = attend_ragged(*states, ragged, causal=True, scaling=None, window=None)
        torch.autograd.grad(out, (q, k, v), grad)

    return [both]
