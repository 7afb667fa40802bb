"""What both baselines need inside their process: clocks, a token counter, an evaluation. Imports torch.

Nothing here changes what the libraries compute: clocks and counter look on, the evaluation comes after.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
import torch.nn.functional as F
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tenfold.memory import peak_resident_bytes, resident_bytes
from tenfold.prove.exchange import IGNORED, BaselineRequest, BaselineResult, Row, Scores, read_rows

EVAL_BATCH_ROWS = 8
"""`per_device_eval_batch_size` of transformers.TrainingArguments."""


class StepClock(TrainerCallback):
    """Times the training loop and ends it at the request's limit."""

    def __init__(self, request: BaselineRequest) -> None:
        self.max_seconds = request.max_seconds
        self.max_steps = request.max_steps
        self.steps_done = 0
        self.steps_total = 0
        self.first_step_seconds = 0.0
        self.train_seconds = 0.0
        self.peak_bytes: int | None = None
        self.host_peak_bytes: int | None = None
        self._began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.steps_total = state.max_steps
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.steps_done = state.global_step
        if self.steps_done == 1:
            _finish_queued_work()
            self.first_step_seconds = time.perf_counter() - self._began
        late = self.max_seconds is not None and time.perf_counter() - self._began >= self.max_seconds
        if late or self.steps_done == self.max_steps:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        _finish_queued_work()
        self.train_seconds = time.perf_counter() - self._began
        self.host_peak_bytes = peak_resident_bytes()
        self.peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self.host_peak_bytes


class TokenCounter:
    """Counts the tokens that a model is trained on, seen at its door; adds no synchronisation with the device."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.padded = 0
        self._useful: torch.Tensor | int = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    @property
    def useful(self) -> int:
        """Tokens that are not padding."""
        return int(self._useful)

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training:
            self.padded += kwargs["input_ids"].numel()
            self._useful = self._useful + kwargs["attention_mask"].sum()


@dataclass(frozen=True)
class Library:
    """Which library ran and with which settings."""

    name: Literal["transformers.Trainer", "trl.SFTTrainer"]
    packages: tuple[str, ...]
    """Whose versions matter."""
    settings: Mapping[str, object]
    """Those that are not the defaults."""
    notes: tuple[str, ...]


class Session:
    """The wall clock and the memory of a baseline's process; made as soon as the libraries are imported."""

    def __init__(self, request: BaselineRequest, started: float) -> None:
        """`started`: time.perf_counter() before the imports."""
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        self.request = request
        self.started = started
        self.imported = time.perf_counter()
        self.idle_bytes = 0 if torch.cuda.is_available() else resident_bytes()

    def measure(self, trainer: Trainer, library: Library) -> BaselineResult:
        """Train and evaluate with a trainer that is ready, and say what it took."""
        model = trainer.model
        if model is None:
            raise RuntimeError("the trainer has no model")
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        counter, clock = TokenCounter(model), StepClock(self.request)
        trainer.add_callback(clock)
        loaded = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
        rows = read_rows(self.request.eval_rows) if self.request.eval_rows else []
        scores = evaluate(model, rows, self.request.pad_id) if rows else None
        ended = time.perf_counter()
        parts = {
            "import": self.imported - self.started,
            "load": loaded - self.imported,
            "train": trained - loaded,
            "evaluate": ended - trained,
        }
        return BaselineResult(
            library=library.name,
            versions={name: version(name) for name in library.packages},
            settings={name: str(value) for name, value in library.settings.items()},
            notes=library.notes,
            device=str(trainer.args.device),
            dtype=dtype,
            steps_done=clock.steps_done,
            steps_total=clock.steps_total,
            first_step_seconds=clock.first_step_seconds,
            train_seconds=clock.train_seconds,
            wall_seconds=ended - self.started,
            seconds_by_part=parts,
            idle_bytes=self.idle_bytes,
            peak_bytes=clock.peak_bytes,
            host_peak_bytes=clock.host_peak_bytes,
            useful_tokens=counter.useful,
            padded_tokens=counter.padded,
            scores=scores,
        )


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows as one batch, padded on the right to the longest of them: dynamic padding."""
    longest = max(len(row.input_ids) for row in rows)
    batch = {
        "input_ids": [row.input_ids + [pad_id] * (longest - len(row.input_ids)) for row in rows],
        "attention_mask": [[1] * len(row.input_ids) + [0] * (longest - len(row.input_ids)) for row in rows],
        "labels": [
            row.token_labels() + [IGNORED] * (longest - len(row.input_ids)) if row.label is None else row.label
            for row in rows
        ],
    }
    return {name: torch.tensor(values) for name, values in batch.items()}


def evaluate(model: torch.nn.Module, rows: Sequence[Row], pad_id: int) -> Scores:
    """Loss, and for classify accuracy and macro F1, over all rows."""
    device = next(model.parameters()).device
    loss_sum, loss_count = 0.0, 0
    truth: list[int] = []
    predicted: list[int] = []
    ordered = sorted(rows, key=lambda row: len(row.input_ids))
    model.eval()
    with torch.no_grad():
        for start in range(0, len(ordered), EVAL_BATCH_ROWS):
            batch = collate(ordered[start : start + EVAL_BATCH_ROWS], pad_id)
            labels = batch.pop("labels").to(device)
            logits: torch.Tensor = model(**{name: value.to(device) for name, value in batch.items()}).logits.float()
            if labels.dim() == 1:
                truth += labels.tolist()
                predicted += logits.argmax(-1).tolist()
            else:
                logits, labels = logits[:, :-1], labels[:, 1:]
            loss_sum += F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum").item()
            loss_count += int((labels != IGNORED).sum())
    loss = loss_sum / max(1, loss_count)
    if not truth:
        return Scores(loss=loss)
    hits = sum(label == guess for label, guess in zip(truth, predicted, strict=True))
    return Scores(loss=loss, accuracy=hits / len(truth), macro_f1=macro_f1(truth, predicted))


def macro_f1(truth: Sequence[int], predicted: Sequence[int]) -> float:
    """The mean F1 of all labels that occur in either list, each label counting the same."""
    scores: list[float] = []
    for label in set(truth) | set(predicted):
        true_positives = sum(a == b == label for a, b in zip(truth, predicted, strict=True))
        occurrences = sum(a == label for a in truth) + sum(b == label for b in predicted)
        scores.append(2 * true_positives / occurrences)
    return sum(scores) / len(scores)


def _finish_queued_work() -> None:
    """CUDA works behind Python's back; a clock must wait for it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
