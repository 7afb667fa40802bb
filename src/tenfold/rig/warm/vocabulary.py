"""Another vocabulary for a model: tables of another size, old rows in their new places, new rows initialised."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel

from tenfold.cuts.warm_start import Method, WarmStart
from tenfold.data.tokenizer import Tokenizer, read_tokenizer
from tenfold.rig.warm.compose import composed_rows
from tenfold.rig.warm.distil import distilled_rows
from tenfold.rig.warm.donor import imported_rows
from tenfold.rig.warm.focus import similar_rows
from tenfold.rig.warm.means import mean_rows, random_rows, subtoken_rows
from tenfold.rig.warm.request import Initialiser, Request, Rows, tables_of
from tenfold.rig.warm.transplant import transplanted_rows
from tenfold.vocabulary.extend import extend
from tenfold.vocabulary.transfer import ROLES, Transfer

INITIALISERS: dict[Method, Initialiser] = {
    "random": random_rows,
    "mean": mean_rows,
    "subtokens": subtoken_rows,
    "compose": composed_rows,
    "focus": similar_rows,
    "transplant": transplanted_rows,
    "donor": imported_rows,
    "distil": distilled_rows,
}


def new_tokenizer(cut: WarmStart, old: Tokenizer) -> Tokenizer:
    """The tokenizer that the cut asks for. Raises InputError where tokens cannot be added."""
    return read_tokenizer(cut.tokenizer) if cut.tokenizer else extend(old, cut.tokens)


def change_vocabulary(model: PreTrainedModel, request: Request, method: Method) -> None:
    """Give the model, in place, the tables of the new vocabulary."""
    rows = INITIALISERS[method](request)
    old = tables_of(model)
    size = max(len(old.input), request.transfer.rows) if _is_extension(request.transfer) else request.transfer.rows
    tables = Rows(
        _new_table(old.input, rows.input, request.transfer, size),
        None if old.output is None or rows.output is None
        else _new_table(old.output, rows.output, request.transfer, size),
    )  # fmt: skip
    model.resize_token_embeddings(size, mean_resizing=False)
    _write(cast("torch.nn.Parameter", model.get_input_embeddings().weight), tables.input)
    if tables.output is not None:
        _write(cast("torch.nn.Parameter", cast("Any", model).get_output_embeddings().weight), tables.output)
    if not _is_extension(request.transfer):
        _renumber_special_tokens(model, request.new)


def _is_extension(transfer: Transfer) -> bool:
    """All old tokens keep their numbers, so that the old table stays where it is."""
    return all(new == old for new, old in transfer.kept)


def _new_table(old: torch.Tensor, rows: torch.Tensor, transfer: Transfer, size: int) -> torch.Tensor:
    """[size, hidden] of old and new rows; a row that no token names is the mean of the old ones, or as it was."""
    kept = torch.tensor([pair for pair in transfer.kept if pair[1] < len(old)])  # a tokenizer may name more than exist
    if _is_extension(transfer):
        missing = max(0, size - len(old))
        table = torch.cat([old, old.mean(0).expand(missing, -1)])
    else:
        table = old.mean(0).expand(size, -1).clone()
        table[kept[:, 0]] = old[kept[:, 1]]
    table[torch.tensor(transfer.new_ids)] = rows
    return table


@torch.no_grad()
def _write(weight: torch.nn.Parameter, table: torch.Tensor) -> None:
    weight.copy_(table)


def _renumber_special_tokens(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Let the configuration name begin, end, padding and the like by their new numbers."""
    for config in (model.config, getattr(model, "generation_config", None)):
        for role in ROLES:
            token = tokenizer.special_tokens.get(role)
            if config is not None and token and getattr(config, f"{role}_id", None) is not None:
                setattr(config, f"{role}_id", tokenizer.backend.token_to_id(token))
