"""Comparing a model with itself before and after a change that must not alter it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from tenfold.rig.attention import unplanned_attention

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Allowed ||a - b|| / ||a||: some hundred units in the last place, far under what a wrong mask or head gives."""


def outputs_differ(
    expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], computed_in: torch.dtype = torch.float32
) -> str:
    """Why `found` is not `expected` up to rounding, as a phrase; empty if it is.

    Under autocast products may be `computed_in` fewer bits than the outputs have.
    """
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            return f"shape {tuple(b.shape)} instead of {tuple(a.shape)}"
        error = float((a.float() - b.float()).norm() / a.float().norm().clamp_min(1e-12))
        if not error <= max(TOLERANCE[a.dtype], TOLERANCE[computed_in]):
            return f"relative difference {error:.1e}"
    return ""


@torch.no_grad()
def probe_hidden(model: PreTrainedModel) -> torch.Tensor:
    """The last hidden states of a short row; nothing random is drawn, and the model is left as it was."""
    training = model.training
    model.eval()
    ids = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    with unplanned_attention():
        hidden = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    model.train(training)
    return hidden
