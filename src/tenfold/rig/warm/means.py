"""What needs no more than the old table: noise (the control), the mean of all rows, the mean of a token's parts."""

from __future__ import annotations

import torch

from tenfold.rig.warm.request import Request, Rows, on_both


def random_rows(request: Request) -> Rows:
    """Normal noise of the model's `initializer_range`: what transformers gives a new row without mean_resizing."""
    generator = torch.Generator().manual_seed(request.seed)
    deviation = float(getattr(request.model.config.get_text_config(), "initializer_range", 0.02))
    count = len(request.transfer.new_ids)

    def make(table: torch.Tensor) -> torch.Tensor:
        return deviation * torch.randn(count, table.shape[1], generator=generator)

    return on_both(request.tables, make)


def mean_rows(request: Request) -> Rows:
    """The mean of all old rows that tokens have, for every new token: what transformers' mean_resizing comes to."""
    count, used = len(request.transfer.new_ids), request.old.next_id
    return on_both(request.tables, lambda table: table[:used].mean(0).expand(count, -1).clone())


def subtoken_rows(request: Request) -> Rows:
    """The mean of the rows of the tokens that each new one used to be (FVT, arXiv 2211.10974)."""
    return on_both(request.tables, lambda table: mean_of_parts(table, request))


def with_norms_of(rows: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Each of `rows` [n, hidden] as long as that of `reference`.

    Rows that come from elsewhere point where they should, but their length says more about how they were found: least
    squares shrinks, and so does a mean of many. A row's length is how readily its token is written, so that means of
    parts, which are known to do, are the measure.
    """
    return rows * (reference.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True).clamp_min(1e-12))


def mean_of_parts(table: torch.Tensor, request: Request) -> torch.Tensor:
    """[n, hidden]; the mean of all rows for a token without parts."""
    everything = table[: request.old.next_id].mean(0)
    return torch.stack([table[list(parts)].mean(0) if parts else everything for parts in request.transfer.parts])
