"""What a run really cost: every prediction beside its measurement, and all that is needed to check or repeat it.

A receipt is one JSON file. What was not measured is null, never a guess. Ratios against a baseline are computed from
it (see `compare`), never stored in it, so that no figure can disagree with its own parts.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from html import escape
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from tenfold.durable import write_file
from tenfold.errors import InputError
from tenfold.inert import printable
from tenfold.interval import wilson_interval
from tenfold.redact import redact

Status = Literal["done", "stopped_at_budget", "preempted", "interrupted", "failed"]
QuantityName = Literal[
    "peak_memory_bytes", "idle_memory_bytes", "train_seconds", "wall_seconds", "steps", "tokens", "loss_tokens", "usd"
]
Unit = Literal["bytes", "seconds", "steps", "tokens", "usd"]
Part = Literal["import", "load", "warm_start", "tokenise", "check", "train", "evaluate", "checkpoint", "save"]
EventKind = Literal["resumed", "smaller_step", "loss_spike", "note"]
Evidence = Literal["measured", "extrapolated", "predicted"]
Verdict = Literal["ok", "warning", "refusal", "left_out"]


def _number_or_none(value: object) -> object:
    return None if isinstance(value, float) and not isfinite(value) else value


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Utc = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Amount = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# A run that diverged still owes a receipt: the loss that was not finite is null in it.
Reading = Annotated[float | None, BeforeValidator(_number_or_none)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Measured(_Value):
    """One quantity, as the plan foretold it and as the run measured it; null where either is not known."""

    name: QuantityName
    unit: Unit
    predicted: Amount | None = None
    measured: Amount | None = None


class CurvePoint(_Value):
    """The run at one logged step; `tokens`, `seconds` and `usd` count from the run's start, resumes included."""

    step: int
    tokens: int
    seconds: Amount
    usd: Amount | None = None
    loss: Reading = None
    learning_rate: Reading = None
    tokens_per_second: Reading = None
    metrics: dict[str, Reading] = Field(default_factory=dict)
    """Evaluation at this step, by metric."""


class Quality(_Value):
    """One metric on the evaluation rows, with its 95 % interval where one is known."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    @classmethod
    def accuracy(cls, correct: int, total: int) -> Self:
        """The accuracy of `correct` rows among `total`, with Wilson's interval."""
        low, high = wilson_interval(correct, total)
        return cls(metric="accuracy", value=correct / total, low=low, high=high, rows=total)


class QualityGoal(_Value):
    """The quality that the recipe asked for."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None


class Retention(_Value):
    """What a changed model still knows of its old domain: the same texts before and after."""

    source: str
    """Where the texts are from."""
    texts: int
    unit: Literal["nats per byte", "cosine"]
    """Of a language model its loss; of an encoder how near its states are to those of the base."""
    before: float
    """The named model with its own vocabulary."""
    start: float
    """The changed model before its first step."""
    after: Reading = None
    """At the end of the run."""


class Bill(_Value):
    """Money: `billed_seconds` of wall time at a dated price; null where nobody stated a price."""

    usd: Amount | None = None
    usd_per_hour: Amount | None = None
    price_source: str = ""
    price_date: date | None = None
    billed_seconds: Amount
    usd_per_million_tokens: Amount | None = None
    kwh: Amount | None = None
    """Only where a power meter was read."""
    budget_usd: Amount | None = None
    budget_hours: Amount | None = None


class Hardware(_Value):
    """The computer that ran it."""

    machine: str
    cpu: str = ""
    cores: int | None = None
    gpu: str = ""
    gpu_count: int = 0
    memory_bytes: int | None = None
    """Memory of the device that trained: the GPU's where there is one, else the computer's."""
    os: str = ""


class CutUsed(_Value):
    """A cut as applied, with the facts it printed."""

    name: str
    exact: bool
    facts: tuple[str, ...] = ()


class Baseline(_Value):
    """The same task by other means, and how much of that was run for real."""

    kind: Literal["naive", "peer"]
    label: str
    how: Evidence
    measured_fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the run's tokens that were really trained: 1 measured, between extrapolated, 0 predicted."""
    versions: dict[str, str] = Field(default_factory=dict)
    tokens: Amount | None = None
    """Really trained, padding left out."""
    train_seconds: Amount | None = None
    wall_seconds: Amount | None = None
    peak_memory_bytes: Amount | None = None
    idle_memory_bytes: Amount | None = None
    usd: Amount | None = None
    quality: tuple[Quality, ...] = ()
    stopped_quality: tuple[Quality, ...] = ()
    """What it had reached when it was stopped, if it was: no measure of the whole."""
    note: str = ""
    hardware: Hardware | None = None
    data_sha256: Sha256 | None = None
    base_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _labelled_truly(self) -> Self:
        fraction = self.measured_fraction
        true_label = "measured" if fraction == 1 else "predicted" if fraction == 0 else "extrapolated"
        if self.how != true_label:
            raise ValueError(f"a baseline of which {fraction:.0%} ran is {true_label}, not {self.how}")
        if self.quality and self.how != "measured":
            raise ValueError(f"a baseline that is {self.how} has no measured quality")
        return self


class Event(_Value):
    """Something that happened on the way: a resume, a fallback, a note."""

    at: Utc
    kind: EventKind
    text: str


class Finding(_Value):
    """What one check said before the first step was paid for. Holds counts and places, no text of a row."""

    check: str
    verdict: Verdict
    text: Annotated[str, AfterValidator(redact)]


class Receipt(_Value):
    """One run. Times are UTC, durations come from a monotonic clock, memory is in bytes, money in US dollars."""

    schema_version: Literal[1] = 1
    run_id: str
    name: str
    status: Status
    model: str
    task: str
    tags: tuple[str, ...] = ()
    started_at: Utc
    ended_at: Utc

    plan: dict[str, JsonValue]
    recipe_sha256: Sha256
    data_sha256: Sha256
    base_sha256: Sha256 | None
    versions: dict[str, str]
    hardware: Hardware
    seed: int

    measurements: tuple[Measured, ...]
    seconds_by_part: dict[Part, Amount] = Field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    quality: tuple[Quality, ...] = ()
    goal: QualityGoal | None = None
    retention: Retention | None = None
    """Where a warm start has changed the model."""
    bill: Bill
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """What became of the training rows."""
    evaluation_data: dict[str, JsonValue] = Field(default_factory=dict)
    checks: tuple[Finding, ...] = ()
    """What was looked at before the first step, in the order of the checks."""
    cuts: tuple[CutUsed, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    events: tuple[Event, ...] = ()
    resumes: int = 0

    def quantity(self, name: QuantityName) -> Measured | None:
        """The prediction and the measurement of one quantity, if the receipt holds it."""
        return next((item for item in self.measurements if item.name == name), None)

    def measured(self, name: QuantityName) -> float | None:
        """What was measured of one quantity, if it was."""
        found = self.quantity(name)
        return None if found is None else found.measured

    def to_json(self) -> str:
        """The file's text: indented JSON in the order of the fields, without secrets."""
        return redact(self.model_dump_json(indent=2)) + "\n"

    def write(self, path: Path) -> str:
        """Write to `path` whole or not at all, and return the SHA-256 of the file's bytes."""
        content = self.to_json().encode()
        write_file(path, content)
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The receipt in `path`; an InputError names what is wrong with any other file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(
                f"{printable(str(path))}: cannot be read ({error.strerror}); name the receipt.json of a run"
            ) from None
        except ValidationError as error:
            raise InputError(f"{printable(str(path))}: not a receipt of this version: {_first_fault(error)}") from None

    def _repr_html_(self) -> str:
        """The few lines that a notebook shows."""
        usd = self.measured("usd")
        peak = self.measured("peak_memory_bytes")
        seconds = self.measured("train_seconds")
        rows = [("run", f"{self.name} ({self.status})"), ("model", self.model), ("machine", self.hardware.machine)]
        rows += [("cuts", ", ".join(cut.name for cut in self.cuts) or "none")]
        rows += [(item.metric, f"{item.value:.4g}{_range(item)}") for item in self.quality]
        rows += [] if seconds is None else [("training", f"{seconds:,.1f} s")]
        rows += [] if peak is None else [("peak memory", f"{peak / 2**30:.2f} GiB")]
        rows += [] if usd is None else [("cost", f"${usd:,.4f}")]
        cells = "".join(f"<tr><th>{_safe(label)}</th><td>{_safe(text)}</td></tr>" for label, text in rows)
        return f"<table><caption>tenfold receipt</caption>{cells}</table>"


def _safe(text: str) -> str:
    return escape(printable(text))


def _range(item: Quality) -> str:
    return "" if item.low is None or item.high is None else f" [{item.low:.3f}, {item.high:.3f}]"


def _first_fault(error: ValidationError) -> str:
    """The first thing pydantic found, as one line: where, and what."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return printable(f"{where}: {fault['msg']}" if where else fault["msg"])
