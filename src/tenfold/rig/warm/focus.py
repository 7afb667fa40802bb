"""New rows as weighted means of old ones that are used in the same company (FOCUS, arXiv 2305.14481).

Where two tokens stand in the text says how alike they are: what follows and precedes each is counted, as positive
pointwise mutual information, and reduced to a few dimensions. FOCUS trains fastText vectors for that; counting does
without another library and another training. With a donor, its embeddings are the measure of likeness instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from tenfold.errors import InputError
from tenfold.rig.warm.means import mean_of_parts, with_norms_of
from tenfold.rig.warm.request import Request, Rows, on_both

WINDOW = 5
"""Neighbours on each side that count as company: fastText's default window."""

CONTEXTS = 2000
"""The commonest tokens, in whose company the others are compared."""

DIMENSIONS = 100
"""fastText's default."""


def similar_rows(request: Request) -> Rows:
    """Sparsemax over the cosines with all old tokens of the text; means of parts for tokens that the text lacks."""
    if not request.texts:
        raise InputError("cuts.warm_start.initialise: focus compares tokens by the text they stand in; none was given")
    transfer = request.transfer
    vectors, seen = company_vectors(request.new.encode_batch(request.texts, add_special_tokens=False), transfer.rows)
    kept = torch.tensor([pair for pair in transfer.kept if bool(seen[pair[0]])])
    places = torch.tensor([place for place, number in enumerate(transfer.new_ids) if bool(seen[number])])
    if len(kept) == 0 or len(places) == 0:
        raise InputError("cuts.warm_start.initialise: focus finds none of the new tokens in the text; write distil")
    likeness = vectors[torch.tensor(transfer.new_ids)[places]] @ vectors[kept[:, 0]].T
    weights = sparsemax(likeness)

    def make(table: torch.Tensor) -> torch.Tensor:
        rows = mean_of_parts(table, request)
        rows[places] = with_norms_of(weights @ table[kept[:, 1]], rows[places])
        return rows

    return on_both(request.tables, make)


def company_vectors(texts: Sequence[Sequence[int]], rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors [rows, d] of tokens by the company they keep in `texts`, and which of them occur [rows]."""
    ids = torch.cat([F.pad(torch.tensor(text), (0, WINDOW), value=rows) for text in texts if text])
    occurrences = torch.bincount(ids, minlength=rows + 1)[:rows]
    contexts = occurrences.topk(min(CONTEXTS, int((occurrences > 0).sum()))).indices
    column = torch.full((rows + 1,), len(contexts))
    column[contexts] = torch.arange(len(contexts))
    counts = torch.zeros(rows + 1, len(contexts) + 1)
    for distance in range(1, WINDOW + 1):
        for here, there in ((ids[:-distance], ids[distance:]), (ids[distance:], ids[:-distance])):
            counts.index_put_((here, column[there]), torch.ones(len(here)), accumulate=True)
    counts = counts[:rows, : len(contexts)]
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum().clamp_min(1)
    information = (counts / expected.clamp_min(1e-9)).clamp_min(1).log()  # positive pointwise mutual information
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, scale, _ = torch.svd_lowrank(information, q=min(DIMENSIONS, len(contexts)))
    return F.normalize(left * scale.sqrt(), dim=1), occurrences > 0


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex to each row of `scores` [n, s]: most weights are 0 (arXiv 1602.02068)."""
    ordered = scores.sort(1, descending=True).values
    sums = ordered.cumsum(1) - 1
    ranks = torch.arange(1, scores.shape[1] + 1)
    support = (ordered * ranks > sums).sum(1, keepdim=True)
    threshold = sums.gather(1, support - 1) / support
    return (scores - threshold).clamp_min(0)
