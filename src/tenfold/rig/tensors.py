"""The tensors inside of a value: batches, and what blocks are called with."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All tensors in a dataclass, its fields in order, those of dataclasses within it included."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_of(item)]
    if is_dataclass(value):
        return [tensor for field in fields(value) for tensor in tensors_of(getattr(value, field.name))]
    return []
