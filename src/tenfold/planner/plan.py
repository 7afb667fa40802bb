"""A plan: what is to be done, what it would cost, and why not otherwise. One JSON file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tenfold.durable import write_file
from tenfold.errors import InputError
from tenfold.job import process_seconds
from tenfold.recipe import Recipe
from tenfold.recipe.schema import OptimizerName
from tenfold.redact import redact


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prediction(_Value):
    """What one way of running would take."""

    steps: int
    tokens: float
    """Trained, padding left out."""
    peak_bytes: float
    peak_moment: str
    """The moment of a step at which it holds most."""
    bytes_by_kind: dict[str, float]
    """What it holds then; their sum is `peak_bytes`."""
    flops_by_part: dict[str, float]
    work: dict[str, float]
    """What its steps do, in the units that machines have rates for: job.Work."""
    seconds_by_part: dict[str, float]
    total_seconds: float
    """From the first billed second to the last."""
    billed_seconds: float
    """In whole billing units."""
    usd: float | None
    kwh: float | None
    grams_co2e: float | None
    error: float
    """Relative half-width: seconds and dollars may be off by so much."""

    @property
    def train_seconds(self) -> float:
        """Seconds of the steps, the first of which compile."""
        return self.seconds_by_part["train"] + self.seconds_by_part["compile"]

    @property
    def process_seconds(self) -> float:
        """What the run's own process spends; the rest is the machine's set-up, and what interruptions cost."""
        return process_seconds(self.seconds_by_part)


class ShapeOnPaper(_Value):
    """The model, in short."""

    name: str
    model_type: str
    parameters: int
    layers: int
    hidden_size: int
    vocab_size: int
    max_positions: int


class WorkloadOnPaper(_Value):
    """The data, in short."""

    rows: int
    tokens: int
    loss_tokens: int
    longest: int
    padding_share: float
    """Of a padded micro-batch at the chosen size, how much would be padding."""


class VocabularyOnPaper(_Value):
    """What a warm start's new vocabulary is foretold to do to the training rows."""

    new_rows: int
    table_rows: int
    least_saved: int
    """Positions that a row had to save to be added."""
    examples: tuple[str, ...]
    """The first of the added tokens."""
    tokens_before: int
    tokens_after: int
    """Of all training rows."""
    share_on_new_text: float | None
    """Positions per old position on texts that did not help to choose."""


class MachineOnPaper(_Value):
    """The machine, its price and what is known of its speed."""

    name: str
    vendor_kind: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    memory_bytes: int
    usd_per_hour: float | None
    provider: str
    tier: str
    price_source: str
    price_date: date | None
    price_doubt: str
    """Why the price may no longer hold; empty if it is fresh or the user's own."""
    hours_between_interruptions: float | None
    terms_source: str
    guessed: bool
    """Its efficiency is a guess, not a measurement."""
    efficiency_source: str

    @property
    def label(self) -> str:
        """Name, provider and kind of price."""
        tier = "" if self.tier == "on_demand" else f" {self.tier}"
        return f"{self.name} ({self.provider}{tier})" if self.provider else self.name


class RunnerUp(_Value):
    """Another way: the best on another machine, or with other cuts, or faster for more dollars."""

    machine: str
    cuts: tuple[str, ...]
    total_seconds: float
    usd: float | None
    peak_bytes: float
    guessed: bool = False
    """The machine's speed is a guess."""


class OnMachine(_Value):
    """The cheapest way on one kind of machine, and what it holds at its peak."""

    machine: str
    memory_bytes: int
    bytes_by_kind: dict[str, float]
    total_seconds: float
    usd: float | None
    chosen: bool


class Rejected(_Value):
    """How many ways failed for one reason, and the nearest of them."""

    reason: str
    count: int


class Plan(_Value):
    """What `tenfold train` executes."""

    schema_version: Literal[1] = 1
    created_at: AwareDatetime
    recipe: Recipe
    shape: ShapeOnPaper
    workload: WorkloadOnPaper
    machine: MachineOnPaper
    cuts: tuple[dict[str, Any], ...]
    micro_batch_size: Annotated[int, Field(ge=1)]
    """Rows per micro-batch of the padded layout; unused when packed."""
    optimizer: OptimizerName
    save_every_steps: Annotated[int, Field(ge=1)] | None
    """The recipe's; else what keeps the expected cost of interruptions least, on a machine that may be taken away."""
    prediction: Prediction
    considered: int
    runners_up: tuple[RunnerUp, ...]
    rejected: tuple[Rejected, ...]
    why: tuple[str, ...]
    front: tuple[RunnerUp, ...]
    """No other way beats one of these in both dollars and hours; cheapest first, the chosen one's equal included."""
    buys: tuple[str, ...]
    """What one more dollar, or one more hour, would buy."""
    by_machine: tuple[OnMachine, ...]
    """Every kind of machine on which something fits, cheapest first."""
    notes: tuple[str, ...]
    """What has to be known besides: stale prices, guesses, what an imported configuration asked for in vain."""
    vocabulary: VocabularyOnPaper | None = None
    naive: Prediction
    """transformers.Trainer with its defaults, predicted: all weights, 8 padded rows a step, the recipe's epochs."""
    from_scratch: Prediction
    """Training the same model from noise on 20 tokens per parameter, computed."""

    @property
    def settled(self) -> Recipe:
        """The recipe with what the plan settled in its place: optimizer and saved states."""
        update = {"optimizer": self.optimizer, "save_every_steps": self.save_every_steps}
        return self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update=update)})

    def write(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        write_file(path, redact(self.model_dump_json(indent=2)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in `path`. Raises InputError naming what is wrong with any other file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); name a file of `tenfold plan --out`"
            ) from error
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise InputError(f"{path}: not a plan of this version: {where}: {fault['msg']}") from None

    def __rich__(self) -> Any:
        """The plan in a terminal."""
        from tenfold.planner.explain import render_plan

        return render_plan(self)

    def _repr_html_(self) -> str:
        """The plan in a notebook."""
        from tenfold.planner.explain import plan_html

        return plan_html(self)
