"""Another model that knows the new tokens, and its rows brought into our space.

The two spaces are compared by the tokens that both know. The map between them is affine and fitted by ridge regression,
so that the donor may be wider or narrower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from tenfold.data.account import plain
from tenfold.data.tokenizer import read_tokenizer
from tenfold.errors import InputError
from tenfold.rig.warm.means import mean_of_parts, with_norms_of
from tenfold.rig.warm.request import Request, Rows, on_both, tables_of
from tenfold.vocabulary.transfer import shared_ids

RIDGE = 1e-2
"""Times the mean square of the donor's rows: what keeps the map of a wide donor from fitting noise."""


@dataclass(frozen=True)
class Donor:
    """A donor's tables, and where its tokens are among ours."""

    tables: Rows
    shared_theirs: torch.Tensor
    """[s] ids of the tokens that both know, in the donor's vocabulary."""
    shared_ours: torch.Tensor
    """[s] and in ours."""
    ids: torch.Tensor
    """[m] the donor's ids of the new tokens that it knows."""
    places: torch.Tensor
    """[m] which of the new rows those are."""

    @property
    def output(self) -> torch.Tensor:
        """Its output table, which may be its input table."""
        return self.tables.input if self.tables.output is None else self.tables.output


def read_donor(request: Request) -> Donor:
    """Load the donor of a request. Raises InputError if it knows none of the new tokens, or cannot be compared."""
    tokenizer = read_tokenizer(request.donor)
    shared = torch.tensor(shared_ids(tokenizer, request.old))
    theirs = tokenizer.backend.get_vocab(with_added_tokens=False)
    known = [(place, theirs[t]) for place, t in enumerate(request.transfer.tokens) if t in theirs]
    if not known:
        raise InputError(
            f"cuts.warm_start.donor: {plain(request.donor)} knows none of the {len(request.transfer.tokens)} new"
            " tokens; choose tokens of its vocabulary (cuts.warm_start.tokenizer), or initialise: distil"
        )
    places, ids = torch.tensor(known).T
    return Donor(_load(request.donor), shared[:, 0], shared[:, 1], ids, places)


def rows_from_donor(
    request: Request, make: Callable[[Donor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
) -> Rows:
    """What `make` finds for each table from the donor's of the same side [., d], our old rows [., h] and what is there
    without a donor [m, h]: the means of the new tokens' parts."""
    donor = read_donor(request)
    fallback = on_both(request.tables, lambda table: mean_of_parts(table, request))
    return Rows(
        make(donor, donor.tables.input, request.tables.input, fallback.input),
        None
        if request.tables.output is None or fallback.output is None
        else make(donor, donor.output, request.tables.output, fallback.output),
    )


def imported_rows(request: Request) -> Rows:
    """The donor's rows through the fitted map; tokens that it lacks are means of their parts."""
    return rows_from_donor(request, _mapped)


def _mapped(donor: Donor, theirs: torch.Tensor, ours: torch.Tensor, fallback: torch.Tensor) -> torch.Tensor:
    rows = fallback.clone()
    weight, bias = fit_map(theirs[donor.shared_theirs], ours[donor.shared_ours])
    rows[donor.places] = with_norms_of(theirs[donor.ids] @ weight + bias, fallback[donor.places])
    return rows


def fit_map(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [d, h] and bias [h] with source [s, d] @ weight + bias near target [s, h]: ridge regression."""
    mean, center = source.mean(0), target.mean(0)
    x, y = source - mean, target - center
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ y)
    return weight, center - mean @ weight


def _load(name: str) -> Rows:
    """Both tables of a model, whatever it was made for."""
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModel
        return tables_of(kind.from_pretrained(name, use_safetensors=True, trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise InputError(f"cuts.warm_start.donor: cannot load {plain(name)}: {str(error).splitlines()[0]}") from error
