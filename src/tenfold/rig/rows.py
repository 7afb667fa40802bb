"""Single rows of an embedding table that learn while the rest of it is frozen, or learns at another rate."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel


class RowEmbedding(torch.nn.Module):
    """An embedding whose rows `ids` [n] are taken from `rows` [n, hidden] float32 instead of the table of `base`.

    Gradients, moments and saved states are n rows large, whatever the table.
    """

    def __init__(self, base: torch.nn.Embedding, ids: torch.Tensor, rows: torch.nn.Parameter) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        place = torch.full((base.num_embeddings,), -1, dtype=torch.long, device=ids.device)
        place[ids] = torch.arange(len(ids), device=ids.device)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("ids", ids, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The table; its rows `ids` are not what is computed with."""
        return self.base.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[...] int64 to [..., hidden] in the table's dtype. Shapes do not depend on which rows occur."""
        place = cast("torch.Tensor", self.place)[input_ids]
        learned = F.embedding(place.clamp_min(0), self.rows).to(self.base.weight.dtype)
        scale = getattr(self.base, "embed_scale", None)  # Gemma multiplies in the embedding itself
        if scale is not None:
            learned = learned * torch.as_tensor(scale, dtype=learned.dtype, device=learned.device)
        return torch.where((place >= 0)[..., None], learned, self.base(input_ids))


class RowHead(torch.nn.Module):
    """A language-model head whose rows `ids` [n] are taken from `rows` [n, hidden] float32 instead of `base`."""

    def __init__(self, base: torch.nn.Linear, ids: torch.Tensor, rows: torch.nn.Parameter) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        self.register_buffer("ids", ids, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The table; its rows `ids` are not what is computed with until `written` has been called."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """One number per token, if the head has them."""
        return cast("torch.Tensor | None", self.base.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to [..., vocabulary]."""
        logits = self.base(hidden)
        ids = cast("torch.Tensor", self.ids)
        bias = None if self.bias is None else self.bias[ids].to(hidden.dtype)
        learned = F.linear(hidden, self.rows.to(hidden.dtype), bias)
        return logits.index_copy(-1, ids, learned.to(logits.dtype))

    @torch.no_grad()
    def written(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`ids` and `rows`, now also in the table, whose own rows of these ids nothing else uses."""
        ids = cast("torch.Tensor", self.ids)
        self.base.weight.data.index_copy_(0, ids, self.rows.to(self.base.weight.dtype))
        return ids, self.rows


def learn_rows(model: PreTrainedModel, ids: Sequence[int]) -> int:
    """Let the rows `ids` of the embeddings learn apart, and those of the head, in one if they are tied.

    The model computes what it computed before. Returns how many weights that are.
    """
    embedding = cast("torch.nn.Embedding", model.get_input_embeddings())
    head = model.get_output_embeddings()
    index = torch.tensor(list(ids), dtype=torch.long, device=embedding.weight.device)
    rows = torch.nn.Parameter(embedding.weight.detach()[index].float())
    model.set_submodule(name_of(model, embedding), RowEmbedding(embedding, index, rows))
    count = rows.numel()
    if isinstance(head, torch.nn.Linear):
        if head.weight is not embedding.weight:
            rows = torch.nn.Parameter(head.weight.detach()[index].float())
            count += rows.numel()
        model.set_submodule(name_of(model, head), RowHead(head, index, rows))
    return count


def name_of(model: torch.nn.Module, wanted: torch.nn.Module) -> str:
    """The path of a module in the model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def row_modules(model: torch.nn.Module) -> dict[str, RowEmbedding | RowHead]:
    """Every module with rows of its own, by its path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, RowEmbedding | RowHead)}


def fold_rows(model: PreTrainedModel) -> dict[str, RowEmbedding | RowHead]:
    """Put the learned rows into their tables and the plain modules back; return those that were there, by path."""
    apart = row_modules(model)
    for name, module in apart.items():
        ids = cast("torch.Tensor", module.ids)
        module.base.weight.data.index_copy_(0, ids, module.rows.detach().to(module.base.weight.dtype))
        model.set_submodule(name, module.base)
    return apart


@contextmanager
def folded(model: PreTrainedModel) -> Generator[None]:
    """Inside, the model has its plain embeddings and head, with the learned rows in their tables."""
    apart = fold_rows(model)
    try:
        yield
    finally:
        for name, module in apart.items():
            model.set_submodule(name, module)
