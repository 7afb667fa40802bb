"""New vocabularies of several sizes side by side, each priced as the plan that it would make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict

from tenfold.planner.plan import Plan

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Numbers of new tokens that are compared."""


class VocabularySize(BaseModel):
    """One vocabulary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_tokens: int
    """0 is the model's own."""
    positions: int
    """Of the training rows."""
    share_on_new_text: float | None
    """Positions per old position on texts that did not help to choose."""
    seconds_per_epoch: float
    usd_per_epoch: float | None
    preparation_seconds: float
    """Once, before the first step."""


class VocabularySizes(BaseModel):
    """What `tenfold vocabulary` shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    """Of training."""
    sizes: tuple[VocabularySize, ...]
    chosen: int
    """The number of tokens that a recipe with `tokens: auto` adds."""
    least_saved: int
    """Positions that a row has to save."""
    tokens: tuple[str, ...]
    """The chosen ones."""

    def __rich__(self) -> Any:
        """The table in a terminal."""
        from tenfold.planner.explain import render_sizes

        return render_sizes(self)


def compare_sizes(own: Plan, chosen: Plan, plan_with: Callable[[int], Plan]) -> VocabularySizes:
    """The model's own vocabulary, the chosen one, and smaller and larger ones; `plan_with` plans a number of tokens."""
    assert chosen.vocabulary is not None
    count = chosen.vocabulary.new_rows
    others = [size for size in SIZES if size < count]
    plans = [own, *(plan_with(size) for size in others), chosen]
    return VocabularySizes(
        rows=own.workload.rows,
        sizes=tuple(_size(plan) for plan in plans),
        chosen=count,
        least_saved=chosen.vocabulary.least_saved,
        tokens=next(tuple(cut["tokens"]) for cut in chosen.cuts if cut["cut"] == "warm_start"),
    )


def _size(plan: Plan) -> VocabularySize:
    new, found = plan.vocabulary, plan.prediction
    epochs = found.tokens / plan.workload.tokens
    seconds = found.train_seconds / epochs
    price = plan.machine.usd_per_hour
    return VocabularySize(
        new_tokens=0 if new is None else new.new_rows,
        positions=plan.workload.tokens,
        share_on_new_text=None if new is None else new.share_on_new_text,
        seconds_per_epoch=seconds,
        usd_per_epoch=None if price is None else seconds / 3600 * price,
        preparation_seconds=found.seconds_by_part.get("warm_start", 0.0),
    )
