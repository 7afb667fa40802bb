"""New rows by sparse combinations: what a donor's row is among the tokens that both models know, ours is too.

Orthogonal matching pursuit finds the combination in the donor's space; its weights are then applied to our rows, which
may have another width (arXiv 2506.06607).
"""

from __future__ import annotations

import torch

from tenfold.rig.warm.donor import Donor, rows_from_donor
from tenfold.rig.warm.means import with_norms_of
from tenfold.rig.warm.request import Request, Rows

SPARSITY = 64
"""Tokens that are combined (ibid., section 4); at most a quarter of the donor's width, or every row would fit."""

AT_ONCE = 256
"""Tokens whose combinations are sought at the same time, which bounds the memory."""


def transplanted_rows(request: Request) -> Rows:
    """OMP over the shared tokens, each table from the donor's of the same side; tokens that the donor lacks are means
    of their parts."""
    return rows_from_donor(request, _combined)


def _combined(donor: Donor, theirs: torch.Tensor, ours: torch.Tensor, fallback: torch.Tensor) -> torch.Tensor:
    rows = fallback.clone()
    dictionary, values = theirs[donor.shared_theirs], ours[donor.shared_ours]
    count = max(1, min(SPARSITY, theirs.shape[1] // 4, len(dictionary)))
    for places, ids in zip(donor.places.split(AT_ONCE), donor.ids.split(AT_ONCE), strict=True):
        chosen, weights = matching_pursuit(theirs[ids], dictionary, count)
        rows[places] = with_norms_of((weights[:, None] @ values[chosen])[:, 0], fallback[places])
    return rows


def matching_pursuit(targets: torch.Tensor, dictionary: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `targets` [n, d] the numbers [n, count] and least-squares weights [n, count] of `count` rows of
    `dictionary` [s, d], chosen one by one by their correlation with what is still unexplained (Pati et al., 1993)."""
    unit = torch.nn.functional.normalize(dictionary, dim=1)
    chosen = torch.empty(len(targets), 0, dtype=torch.long)
    weights = torch.empty(len(targets), 0)
    residual = targets
    for _ in range(count):
        scores = (residual @ unit.T).abs().scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, scores.argmax(1, keepdim=True)], 1)
        atoms = dictionary[chosen]
        gram = atoms @ atoms.mT
        gram.diagonal(dim1=1, dim2=2).add_(1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
        weights = torch.linalg.solve(gram, (atoms @ targets[..., None]))[..., 0]
        residual = targets - (weights[:, None] @ atoms)[:, 0]
    return chosen, weights
