"""The run for real, as one value that cuts transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import torch
from transformers import PreTrainedModel

from tenfold.cuts.checkpoint import Checkpoint
from tenfold.cuts.lora import LoRA
from tenfold.data.tokenize import Sample
from tenfold.data.tokenizer import Tokenizer
from tenfold.rig.backward import Backward, Loss, eager_backward
from tenfold.rig.batch import Batch, batch_from_tensors

Task = Literal["classify", "sft", "text"]

Layout = Callable[[Sequence[Sample]], list[Batch]]
"""Lays the rows of one optimizer step out as micro-batches."""


@dataclass(frozen=True)
class Source:
    """Where the base model comes from."""

    name: str
    """Hugging Face id or folder."""
    revision: str | None = None


@dataclass(frozen=True)
class Rig:
    """Model, layout and loss. Built once, transformed by the cuts, then handed to the loop."""

    model: PreTrainedModel
    task: Task
    source: Source
    device: torch.device
    layout: Layout
    loss: Loss
    labels: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    """What matrix products compute in, and frozen weights are kept in; what learns is float32, or of more bits than
    this one (run/optimizer)."""
    new_modules: tuple[str, ...] = ()
    """Modules that the base checkpoint did not hold or that are the task's head: trained in full, saved in full."""
    rows: tuple[int, ...] = ()
    """Tokens whose rows of the embeddings, and of the head, learn apart from their tables (rig/rows.py)."""
    tokenizer: Tokenizer | None = None
    """The model's own; None where nobody has given it, and no cut another vocabulary than that of `source`."""
    texts: tuple[str, ...] = ()
    """Of the training rows, for a cut that learns from them before the run."""
    adapter: LoRA | None = None
    checkpoint: Checkpoint | None = None
    """Which activations are not kept on the device; None: all are."""
    backpropagate: Backward = eager_backward
    frozen_compute: Literal["bf16", "fp8"] = "bf16"
    """What the products with quantized weights are to be computed in."""
    frozen_kept: bool = False
    """Quantized weights are kept as their products take them, not made so in each pass."""
    compiled: bool = False
    """Layers are compiled, and so may be what else repeats."""
    facts: tuple[str, ...] = field(default=())
    """One sentence per applied cut: what it really changed."""

    @property
    def trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that receive gradients, in the model's order."""
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def backward(self, batch: Batch, loss_tokens: int) -> torch.Tensor:
        """Forward and backward pass of a micro-batch on this rig's device: adds to the gradients what it owes to a mean
        over `loss_tokens` targets. Returns its summed loss, float32, detached."""
        return self.backpropagate(self.model, self.loss, batch.to(self.device), loss_tokens, self.dtype)

    def _repr_html_(self) -> str:
        """What a notebook shows: what each cut did."""
        facts = "".join(f"<li>{escape(fact)}</li>" for fact in self.facts)
        return f"<p>{escape(type(self.model).__name__)}, {self.task}</p><ul>{facts}</ul>"

    def mean_loss(
        self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss as transformers defines it, for your own loop: a mean over targets, labels not shifted yet.

        input_ids [B, L]; labels [B, L] with -100 where there is no loss, or [B] class numbers; attention_mask [B, L].
        """
        batch = batch_from_tensors(input_ids, labels, attention_mask)
        return self.loss(self.model, batch) / max(1, batch.loss_count)
