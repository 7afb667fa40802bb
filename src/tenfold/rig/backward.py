"""Forward and backward pass of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from tenfold.rig.attention import attention_kernels
from tenfold.rig.batch import Batch
from tenfold.rig.precision import autocast

Loss = Callable[[PreTrainedModel, Batch], torch.Tensor]
"""Sum (not mean) of the losses of a micro-batch, a float32 scalar."""

Backward = Callable[[PreTrainedModel, Loss, Batch, int, torch.dtype], torch.Tensor]
"""Forward and backward pass of a micro-batch: `eager_backward` or what computes the same in another way."""


def eager_backward(
    model: PreTrainedModel, loss: Loss, batch: Batch, loss_tokens: int | torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Add the gradients of the summed loss over `loss_tokens` to the weights; the summed loss, float32, detached.

    Matrix products compute in `dtype`.
    """
    with attention_kernels(batch):  # the backward pass too: it may run layers again
        with autocast(batch.input_ids.device, dtype):
            summed = loss(model, batch)
        (summed / loss_tokens).backward()
    return summed.detach()
