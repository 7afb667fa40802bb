"""The losses of the three tasks, with all logits alive."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from tenfold.rig.batch import IGNORED, Batch


def model_inputs(batch: Batch) -> dict[str, Any]:
    """The keyword arguments of a forward pass; what is None is left out. No key-value cache: nothing is generated."""
    inputs: dict[str, Any] = {
        "use_cache": False,
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "segments": batch.segments,
    }
    return {name: value for name, value in inputs.items() if value is not None}


def class_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """[B, labels] float32."""
    return model(**model_inputs(batch)).logits.float()


def classification_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the labels, summed over rows."""
    return F.cross_entropy(class_logits(model, batch), batch.targets, reduction="sum")


def next_token_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the next token, summed over targets that bear loss."""
    logits = model(**model_inputs(batch)).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")
