"""New rows put together from their parts the way the model's own rows are.

Most old tokens are two other old tokens side by side as well. How their rows follow from the rows of their parts is
fitted on them, by ridge regression, once for each table; new tokens are then composed in the order in which their parts
are known. A mean of parts is one such rule, and a poor one: it points elsewhere, and knows no length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tenfold.rig.warm.means import mean_of_parts
from tenfold.rig.warm.request import Request, Rows, on_both
from tenfold.vocabulary.splits import Split, splits_of

RIDGES = (0.1, 0.3, 1.0, 3.0)
"""Times the mean square of the parts' rows; the one that foretells left-out tokens best is taken."""

MOST_EXAMPLES = 20_000
"""Old tokens that the rule is fitted on: ten for each of its inputs where rows are 1,000 wide."""

FEWEST_EXAMPLES = 200
"""With fewer, means of parts are as good."""


def composed_rows(request: Request) -> Rows:
    """Each table by its own rule; where too few tokens of the model teach one, means of parts."""
    old, new = splits_of(request.old), splits_of(request.new)
    numbers = dict(request.transfer.kept)
    return on_both(request.tables, lambda table: _composed(table, request, old, new, numbers))


def _composed(
    table: torch.Tensor, request: Request, old: Sequence[Split], new: Sequence[Split], numbers: dict[int, int]
) -> torch.Tensor:
    if len(old) < FEWEST_EXAMPLES:
        return mean_of_parts(table, request)
    weight = fit_composition(table, torch.tensor(old))
    everything = table[: request.old.next_id].mean(0)
    rows = torch.stack([_one_by_one(table, parts, weight) if parts else everything for parts in request.transfer.parts])
    places = {number: place for place, number in enumerate(request.transfer.new_ids)}

    def row_of(number: int) -> torch.Tensor:
        return table[numbers[number]] if number in numbers else rows[places[number]]

    for left, right, whole in new:
        if whole in places:
            rows[places[whole]] = _inputs(row_of(left)[None], row_of(right)[None])[0] @ weight
    return rows


def _one_by_one(table: torch.Tensor, parts: Sequence[int], weight: torch.Tensor) -> torch.Tensor:
    """A token's old parts put together from the left, for where no two tokens of the new vocabulary make it."""
    row = table[parts[0]][None]
    for part in parts[1:]:
        row = _inputs(row, table[part][None]) @ weight
    return row[0]


def fit_composition(table: torch.Tensor, splits: torch.Tensor) -> torch.Tensor:
    """[2 hidden + 1, hidden]: what rows of `table` [V, hidden] come to by those of their parts, given as ids [n, 3]."""
    order = torch.randperm(len(splits), generator=torch.Generator().manual_seed(0))[:MOST_EXAMPLES]
    splits = splits[order]
    inputs, outputs = _inputs(table[splits[:, 0]], table[splits[:, 1]]), table[splits[:, 2]]
    known = len(splits) * 9 // 10
    errors = [
        float((inputs[known:] @ _ridge(inputs[:known], outputs[:known], ridge) - outputs[known:]).square().sum())
        for ridge in RIDGES
    ]
    return _ridge(inputs, outputs, RIDGES[errors.index(min(errors))])


def _inputs(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.cat([left, right, torch.ones(len(left), 1)], 1)


def _ridge(inputs: torch.Tensor, outputs: torch.Tensor, ridge: float) -> torch.Tensor:
    gram = inputs.T @ inputs
    gram.diagonal().add_(ridge * gram.diagonal()[:-1].mean())
    return torch.linalg.solve(gram, inputs.T @ outputs)
