"""What approximate cuts were measured to do to quality, and which of them the planner may therefore choose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tenfold.cuts import CUTS, Cut, FineTune, WarmStart
from tenfold.recipe import Metric, Recipe, Task
from tenfold.recipe.contradictions import LABEL_METRICS


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class QualityMeasured(_Value):
    """A metric with a cut minus the same metric without it, on one model and one set of data."""

    task: Task
    model: str
    data: str
    metric: Metric
    beside: str
    """What training without the cut was."""
    settings: str
    """Of the cut and of the training with it."""
    of: Mapping[str, str] = {}
    """Fields of the cut without which it is another: `{"storage": "nf4"}`; a row says nothing of cuts that differ."""
    difference: float
    """Mean over the seeds, in the metric's own unit: shares for accuracy and macro_f1, nats for loss."""
    low: float
    high: float
    """95 % interval: Student's t over the seeds, or of one published seed the binomial one over its test rows."""
    seeds: Annotated[int, Field(ge=1)]
    date: date
    source: str
    """The file that holds every seed's numbers, or the address of a published result."""
    note: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.difference <= self.high:
            raise ValueError(f"{self.difference} is not between {self.low} and {self.high}")
        return self

    @property
    def is_harm(self) -> bool:
        """The whole interval is on the worse side."""
        return self.high < 0 if self.metric in LABEL_METRICS else self.low > 0

    @property
    def text(self) -> str:
        """In a line: `accuracy +0.021 to +0.095 on banking77 (all-MiniLM-L6-v2, 3 seeds)`."""
        interval = f"{self.low:+.3f} to {self.high:+.3f}"
        count = "published" if self.source.startswith("https://") else f"{self.seeds} seeds"
        return f"{self.metric} {interval} on {self.data} ({self.model}, {count})"


class QualityEvidence(_Value):
    """evidence/quality.json: rows by the name of their cut."""

    about: str = ""
    cuts: Mapping[str, tuple[QualityMeasured, ...]]

    def rows(self, cut: str, task: Task) -> tuple[QualityMeasured, ...]:
        """What was measured of the cut of this name on this task."""
        return tuple(row for row in self.cuts.get(cut, ()) if row.task == task)

    def rows_of(self, cut: Cut, task: Task) -> tuple[QualityMeasured, ...]:
        """What was measured of a cut with these settings."""
        rows = self.rows(cut.name, task)
        return tuple(row for row in rows if all(getattr(cut, field) == value for field, value in row.of.items()))


@lru_cache(maxsize=1)
def quality_evidence() -> QualityEvidence:
    """The rows that tenfold ships."""
    return QualityEvidence.model_validate_json(files("tenfold").joinpath("evidence", "quality.json").read_bytes())


def owes_quality(cut: Cut | type[Cut]) -> bool:
    """An approximate cut owes a measured interval; fine_tune does not: it is what the others are measured beside."""
    return not cut.exact and cut.name != FineTune.name


def withhold(recipe: Recipe, evidence: QualityEvidence) -> tuple[Recipe, Mapping[str, str]]:
    """The recipe with every approximate cut turned off that is left open and has no evidence for it; and why each is.

    To name a cut in the recipe is consent, and needs no evidence. Where the recipe asks for a quality, one measurement
    of harm is enough to leave a cut out; else some harmless one among them lets it in.
    """
    has_floor = recipe.quality is not None
    reasons = {
        kind.name: reason
        for kind in CUTS
        if owes_quality(kind)
        and kind is not WarmStart  # never offered by itself: what it would do depends on texts and wishes
        and getattr(recipe.cuts, kind.name) == "auto"
        and (reason := _objection(evidence.rows(kind.name, recipe.task), recipe.task, has_floor))
    }
    return _switch(recipe, reasons, False), reasons


def consent(recipe: Recipe, withheld: Mapping[str, str]) -> Recipe:
    """The recipe with the withheld cuts forced."""
    return _switch(recipe, withheld, True)


def measured_text(cut: Cut, task: Task, evidence: QualityEvidence) -> str:
    """What is known of a chosen cut's quality, to be put behind its price; empty for a cut that owes nothing."""
    if not owes_quality(cut):
        return ""
    rows = evidence.rows_of(cut, task)
    return f"; {_texts(rows)}" if rows else f"; quality not measured for task {task}"


def _objection(rows: tuple[QualityMeasured, ...], task: Task, has_floor: bool) -> str:
    """Why a cut with these rows is not chosen without consent; empty if it may be."""
    if not rows:
        return f"its quality is not measured for task {task}"
    harmful = [row.is_harm for row in rows]
    if all(harmful):
        return f"it is measured to cost quality: {_texts(rows)}"
    if has_floor and any(harmful):
        harm = tuple(row for row in rows if row.is_harm)
        return f"a quality is asked for, and it is measured to cost some: {_texts(harm)}"
    return ""


def _texts(rows: tuple[QualityMeasured, ...]) -> str:
    return ", ".join(row.text for row in rows)


def _switch(recipe: Recipe, names: Mapping[str, str], on: bool) -> Recipe:
    cuts = recipe.cuts.model_copy(update=dict.fromkeys(names, on))
    return recipe.model_copy(update={"cuts": cuts})
