"""What an initialiser is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers import PreTrainedModel

from tenfold.data.tokenizer import Tokenizer
from tenfold.vocabulary.transfer import Transfer


@dataclass(frozen=True)
class Rows:
    """Rows of the input table and of the output table, float32 on the CPU, in one order."""

    input: torch.Tensor
    """[n, hidden]."""
    output: torch.Tensor | None
    """[n, hidden]; None where the model has no head of its own: it is tied, or there is none."""


@dataclass(frozen=True)
class Request:
    """New rows are wanted for `transfer.new_ids`, in that order."""

    model: PreTrainedModel
    """As it was: its tables have the old rows."""
    transfer: Transfer
    old: Tokenizer
    new: Tokenizer
    texts: Sequence[str] = ()
    """Of the training rows."""
    donor: str = ""
    """A model that may know the new tokens."""
    seed: int = 0
    dtype: torch.dtype = torch.float32
    """What matrix products compute in."""

    @property
    def tables(self) -> Rows:
        """The old tables."""
        return tables_of(self.model)


Initialiser = Callable[[Request], Rows]


def tables_of(model: PreTrainedModel) -> Rows:
    """Both tables of a model as they are."""
    embedding = cast("torch.nn.Embedding", model.get_input_embeddings()).weight.detach()
    head = model.get_output_embeddings()
    apart = isinstance(head, torch.nn.Linear) and head.weight.data_ptr() != embedding.data_ptr()
    return Rows(_wide(embedding), _wide(head.weight.detach()) if apart else None)  # type: ignore[union-attr]


def on_both(tables: Rows, make: Callable[[torch.Tensor], torch.Tensor]) -> Rows:
    """The same way for each table, from its own old rows."""
    return Rows(make(tables.input), None if tables.output is None else make(tables.output))


def _wide(table: torch.Tensor) -> torch.Tensor:
    return table.float().cpu()
