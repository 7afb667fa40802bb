"""What goes into a baseline's process and what comes back: a request, files of rows, a result. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from tenfold.data.tokenize import Sample

IGNORED = -100
"""Label of a token that bears no loss: the default `ignore_index` of torch.nn.functional.cross_entropy, which
transformers and TRL keep to."""

DEFAULT_EPOCHS = 3.0
"""`num_train_epochs` of transformers.TrainingArguments."""

DEFAULT_SEED = 42
"""`seed` of transformers.TrainingArguments."""


class Exchanged(BaseModel):
    """Frozen and strict, as everything that is written to a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Exchanged):
    """One row as token ids, the same that tenfold trains on."""

    input_ids: list[int]
    loss_mask: str | None = None
    """A character per token, 1 where it bears loss; None for classify."""
    label: int | None = None

    def token_labels(self) -> list[int]:
        """Labels as transformers wants them for causal models: not shifted, IGNORED where no loss is borne."""
        mask = self.loss_mask or "0" * len(self.input_ids)
        return [token if bears == "1" else IGNORED for token, bears in zip(self.input_ids, mask, strict=True)]


class BaselineRequest(Exchanged):
    """A baseline to run. With neither limit it trains all epochs."""

    model: str
    """Hugging Face id or folder."""
    revision: str | None = None
    task: Literal["classify", "sft", "text"]
    train_rows: Path
    """Written by `write_rows`."""
    eval_rows: Path | None = None
    pad_id: int = Field(ge=0)
    labels: int | None = None
    """classify: how many there are."""
    epochs: float = Field(default=DEFAULT_EPOCHS, gt=0)
    seed: int = DEFAULT_SEED
    max_seconds: float | None = Field(default=None, gt=0)
    """Stop training after the step that passes this many seconds."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop training after this many optimizer steps; the learning rate schedule stays that of the full run."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads; None: as many as the environment says."""


class Scores(Exchanged):
    """Quality on the evaluation rows, in the weights' own precision, without autocast."""

    loss: float
    """Nats, mean over loss-bearing tokens, or over rows for classify."""
    accuracy: float | None = None
    macro_f1: float | None = None
    """classify: the mean F1 of all labels that occur in the truth or the predictions."""


class BaselineResult(Exchanged):
    """What a baseline cost and reached, as measured in its process."""

    library: Literal["transformers.Trainer", "trl.SFTTrainer"]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    """Every setting that is not the library's default, and its value."""
    notes: tuple[str, ...]
    """Why each of these settings was changed, and what else a reader must know."""
    device: str
    dtype: str
    """Of the weights, as the library loaded them."""
    steps_done: int
    steps_total: int
    """Optimizer steps of the full run."""
    first_step_seconds: float
    """Kept apart: the first step also allocates and compiles."""
    train_seconds: float
    """The training loop alone, first step included."""
    wall_seconds: float
    """The whole process from the start of its imports."""
    seconds_by_part: Mapping[str, float]
    """import, load, train, evaluate: together wall_seconds. load holds the reading of the rows and the model."""
    idle_bytes: int | None
    """Held after the imports and before the model: process memory on CPU, 0 on CUDA."""
    peak_bytes: int | None
    """The most held until the end of training: process memory on CPU, torch's allocations on CUDA."""
    host_peak_bytes: int | None
    """The most process memory held until the end of training, on any device."""
    useful_tokens: int
    """Tokens trained on, without padding."""
    padded_tokens: int
    """Tokens computed, with padding."""
    scores: Scores | None
    """None without evaluation rows."""

    @property
    def measured_fraction(self) -> float:
        """Share of the full run's steps that was really trained, 0 to 1."""
        return self.steps_done / self.steps_total

    @property
    def full_train_seconds(self) -> float:
        """Training loop of the full run: as measured, or the first step and the mean of the others for the rest."""
        if self.steps_done >= self.steps_total:
            return self.train_seconds
        if self.steps_done == 1:
            return self.first_step_seconds * self.steps_total
        step_seconds = (self.train_seconds - self.first_step_seconds) / (self.steps_done - 1)
        return self.first_step_seconds + step_seconds * (self.steps_total - 1)

    @property
    def full_seconds(self) -> float:
        """The whole process of the full run: everything measured, with the training loop made full."""
        return self.wall_seconds - self.train_seconds + self.full_train_seconds

    @property
    def how(self) -> str:
        """Where the full seconds come from, in words for a reader."""
        if self.steps_done >= self.steps_total:
            return f"measured, all {self.steps_total:,} steps"
        return f"extrapolated from {self.steps_done:,} of {self.steps_total:,} steps"


def write_rows(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSON lines that a baseline reads."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for sample in samples:
            mask = None if sample.loss_mask is None else "".join("1" if bears else "0" for bears in sample.loss_mask)
            values = {"input_ids": list(sample.input_ids), "loss_mask": mask, "label": sample.label}
            file.write(json.dumps(values) + "\n")


def read_rows(path: Path) -> list[Row]:
    """The rows that `write_rows` wrote."""
    with path.open(encoding="utf-8") as file:
        return [Row.model_validate_json(line) for line in file]
