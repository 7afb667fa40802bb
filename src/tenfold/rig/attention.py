"""Attention over packed rows, under the signature of transformers' attention functions; and torch's kernels for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tenfold.rig.batch import Batch
from tenfold.rig.ragged import Ragged, attend_ragged
from tenfold.rig.segments import Segments, attend_segments


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    segments: Segments | Ragged | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention of packed rows, each within itself.

    query [1, heads, T, D]; key and value [1, kv_heads, T, D]. Returns [1, T, heads, D] and no weights.
    `kwargs` takes what other attention functions of transformers use and this one does not need.
    """
    if segments is None or attention_mask is not None or softcap is not None:
        raise RuntimeError(
            "a packed model trains and evaluates on packed batches only; load the saved model to generate"
        )
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if isinstance(segments, Ragged):
        if dropout:
            raise RuntimeError("packed rows of steady shape are attended without dropout")
        out = attend_ragged(query, key, value, segments, causal=causal, scaling=scaling, window=sliding_window)
    else:
        out = attend_segments(
            query, key, value, segments, causal=causal, scaling=scaling, window=sliding_window, dropout=dropout
        )
    return out, None


def attention_kernels(batch: Batch) -> AbstractContextManager[object]:
    """Which of torch's kernels attend in a micro-batch: cuDNN's only where its shape comes again."""
    return nullcontext() if batch.one_length else unplanned_attention()


def unplanned_attention() -> AbstractContextManager[object]:
    """For passes whose shape may not come again: none of cuDNN's kernels, which torch prefers on Hopper.

    cuDNN makes a plan for each shape, 50 to 100 ms for a forward pass and as much for its backward pass, and now and
    then compiles a kernel for 1 to 2 s (H200, torch 2.11: bench/results/new_shapes_h200_2026-11-28.json). Where shapes
    come again it is the faster one: a step of rows of 8,192 tokens takes 0.36 s with it, 0.40 without.
    """
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
