"""What surrounds the loop: evaluation, saved states, budget, signals and the account of it all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tenfold.data.dataset import Dataset
from tenfold.data.tokenize import Sample
from tenfold.errors import InputError, NotFinite, TenfoldError
from tenfold.export.adapter import save_adapter
from tenfold.export.merge import save_model
from tenfold.inert import printable
from tenfold.recipe import Recipe
from tenfold.redact import redact
from tenfold.rig.rig import Rig
from tenfold.run.base import Base
from tenfold.run.checkpoint import SavedState, load_tensors, restore_rng, rng_state, save_state
from tenfold.run.environment import differences, environment
from tenfold.run.evaluate import StoppedError, evaluate_in_memory
from tenfold.run.events import Event, Observer
from tenfold.run.lock import CLAIM
from tenfold.run.loop import StepReport, name_rows
from tenfold.run.meter import Meter
from tenfold.run.schedule import Schedule
from tenfold.run.spikes import WINDOW, spike_factor
from tenfold.run.stop import StopRequest
from tenfold.run.tally import Spent, Tally

HIGHER_IS_BETTER = {"accuracy", "macro_f1"}


@dataclass
class Progress:
    """How far a run has come: what a saved state holds besides tensors."""

    step: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    resumes: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds_by_part: dict[str, float] = field(default_factory=dict[str, float])
    curve: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    events: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    checks: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """What was found before the first step."""
    recent_losses: list[float] = field(default_factory=list[float])
    """Of the last steps that were learned from, the newest last."""
    left_out: int = 0
    """Steps in a row, up to this one, whose updates were left out for a spike of their loss."""


class Run:
    """One run in progress. `admit` and `after_step` are what the loop calls; the rest is called before and after."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        rig: Rig,
        schedule: Schedule,
        meter: Meter,
        *,
        folder: Path,
        base: Base,
        stop: StopRequest,
        observers: Sequence[Observer],
    ) -> None:
        self.recipe, self.dataset, self.rig, self.schedule, self.meter = recipe, dataset, rig, schedule, meter
        self.folder, self.base, self.stop, self.observers = folder, base, stop, observers
        self.settled: Mapping[str, Any] = {}
        """What the plan settled and a continued run keeps, whatever a plan of that day would say."""
        self.tally = Tally(folder)
        self.optimizer: torch.optim.Optimizer | None = None
        self.progress = Progress()
        self.ended_because: str | None = None
        """None: all steps done. "budget", "loss_spike" or the name of a signal otherwise."""
        self.retained: float | None = None
        """The score of `base.old_domain` at the end, where there is one."""
        self.saved_step = -1
        self._save_seconds = self._export_seconds = self._evaluation_seconds = 0.0
        """What the last one took: a budget is kept with so much in reserve."""

    def tell(self, kind: str, values: Mapping[str, float | int | str | None]) -> None:
        """Let every observer see an event; one that cannot write (a closed terminal, a full disk) hears no more."""
        for observer in tuple(self.observers):
            try:
                observer(Event(kind, dict(values)))
            except OSError as error:
                self.observers = [other for other in self.observers if other is not observer]
                self._keep("note", f"progress is no longer shown or tracked in one place: {error.strerror or error}")

    def admit(self, step: int, loss: float, rows: Sequence[Sample]) -> bool:
        """Whether a step, whose loss is known, is to be learned from: a spike only where the recipe just records it."""
        progress, wish = self.progress, self.recipe.train.on_loss_spike
        factor = spike_factor(loss, progress.recent_losses)
        learned = factor is None or wish == "record"
        if factor is not None:
            text = f"step {step}: loss {loss:.4g}, {factor:.3g} times the median before it; "
            text += "learned from" if learned else "its update is left out"
            self.note("loss_spike", f"{text}. Rows: {name_rows(rows)}")
        progress.left_out = 0 if learned else progress.left_out + 1
        if learned:
            progress.recent_losses = [*progress.recent_losses, loss][-WINDOW:]
        return learned

    def after_step(self, report: StepReport) -> bool:
        """Account for a step; evaluate and save when due. False when the run has to stop here."""
        progress, self.rig = self.progress, report.rig
        progress.step = report.step
        progress.tokens += report.tokens
        progress.loss_tokens += report.loss_tokens
        progress.train_seconds += report.seconds
        wish = self.recipe.train
        if report.step % wish.log_every_steps == 0 or report.step in (1, self.schedule.total_steps):
            self._log(report)
        self.note_spent()
        stopped = self.evaluate() if self._evaluation_due(report.step) else None
        if stopped is None and wish.save_every_steps is not None and report.step % wish.save_every_steps == 0:
            self.save()
        reason = stopped or self._spiked() or self.why_stop(self._next_seconds(report.seconds))
        if reason is not None and (report.step < self.schedule.total_steps or stopped is not None):
            self.ended_because = reason
            self.save()
            return False
        return True

    def evaluate(self) -> str | None:
        """Measure quality now; keep the weights if they are the best so far. Why it had to stop on its way, if so."""
        started = time.monotonic()
        reason: str | None = None

        def keep_on() -> bool:
            nonlocal reason
            reason = self.why_stop(self._export_seconds)
            return reason is None

        try:
            with self.meter.part("evaluate"):
                self.rig, metrics = evaluate_in_memory(
                    self.rig,
                    self.dataset.evaluation,
                    keep_on=keep_on,
                    tell=lambda text: self.note("smaller_step", text),
                )
        except StoppedError:
            return reason
        shown = {key: value for key, value in metrics.items() if key not in ("correct", "rows")}
        self.tell("evaluated", {"step": self.progress.step, **shown})
        self.progress.curve.append({**self._point(), "metrics": shown})
        name = self.best_metric
        sign = 1 if name in HIGHER_IS_BETTER else -1
        if self.progress.best is None or sign * metrics[name] > sign * self.progress.best:
            self.progress.best, self.progress.best_step = metrics[name], self.progress.step
            self.export("best")
        self._evaluation_seconds = time.monotonic() - started
        return None

    @property
    def best_metric(self) -> str:
        """What "best" means: the recipe's quality metric, else accuracy for labels and loss for text."""
        if self.recipe.quality is not None:
            return self.recipe.quality.metric
        return "accuracy" if self.rig.task == "classify" else "loss"

    def export(self, which: str) -> Path:
        """Write the adapter, or the full model, as `<output>/adapter-<which>` or `model-<which>`. Raises as `save`."""
        self._check_before_writing()
        started = time.monotonic()
        with self.meter.part("save"):
            if self.rig.adapter is None:
                target = self.folder / f"model-{which}"
                save_model(self.rig, target)
            else:
                target = self.folder / f"adapter-{which}"
                save_adapter(self.rig, target, self.base.hash.sha256)
        self._export_seconds = time.monotonic() - started
        return target

    def measure_retention(self) -> None:
        """Score the texts of the old domain, where a warm start has changed the model."""
        if self.base.old_domain is not None and self.rig.tokenizer is not None:
            with self.meter.part("evaluate"):
                self.retained = self.base.old_domain.score(self.rig, self.rig.tokenizer)

    def save(self) -> None:
        """Save everything that continuing from here needs.

        Raises NotFinite if the last update left a weight NaN or Inf, and TenfoldError if it cannot be written.
        """
        if self.saved_step == self.progress.step or self.optimizer is None:
            return
        self._check_before_writing()
        started = time.monotonic()
        with self.meter.part("checkpoint"):
            rng, rng_tensors = rng_state()
            tensors = {f"weights/{name}": weight.detach() for name, weight in self.rig.trainable}
            for number, slots in self.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{number}/{slot}": value for slot, value in slots.items()}
            tensors |= {f"rng/{name}": value for name, value in rng_tensors.items()}
            self.progress.wall_seconds = self.meter.wall_seconds
            self.progress.seconds_by_part = self.meter.seconds_by_part
            state = {
                "progress": vars(self.progress),
                "rng": rng,
                "data_sha256": self.dataset.sha256,
                "base_sha256": self.base.hash.sha256,
                "settled": self.settled,
                "environment": environment(self.rig.device),
            }
            keep = self.recipe.train.keep_checkpoints
            save_state(self.folder / "checkpoints", self.progress.step, tensors, state, keep)
        self.saved_step = self.progress.step
        self._save_seconds = time.monotonic() - started
        self.tell("saved", {"text": f"saved checkpoint at step {self.progress.step}"})

    def restore(self, saved: SavedState) -> None:
        """Continue from a saved state: weights, optimizer, random state and position.

        Raises InputError if it holds other weights than this model learns.
        """
        assert self.optimizer is not None
        tensors = load_tensors(saved, self.rig.device)
        self._check_weights_of(saved, tensors)
        with torch.no_grad():
            for name, weight in self.rig.trainable:
                weight.copy_(tensors[f"weights/{name}"])
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, number, slot = key.split("/")
                slots.setdefault(int(number), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        rng = {key.removeprefix("rng/"): value for key, value in tensors.items() if key.startswith("rng/")}
        absent = restore_rng(saved.state["rng"], rng)
        self.progress = Progress(**saved.state["progress"])
        self.progress.resumes += 1
        self.saved_step = self.progress.step
        self.note("resumed", f"continuing at step {self.progress.step}")
        for message in saved.skipped:
            self.note("note", message)
        if absent:
            self.note("note", f"not bit-exact: no random state for {', '.join(absent)}")
        if changed := differences(saved.state.get("environment", {}), environment(self.rig.device)):
            self.note("note", f"not bit-exact: {', '.join(changed)}")

    def add_earlier(self) -> None:
        """Bill what earlier attempts have spent, after their last checkpoint too."""
        saved = Spent(self.progress.wall_seconds, self.progress.seconds_by_part)
        spent = max(saved, self.tally.read(), key=lambda spent: spent.wall_seconds)
        self.meter.add_earlier(spent.wall_seconds, spent.seconds_by_part)
        lost_seconds = spent.wall_seconds - saved.wall_seconds
        if lost_seconds >= 1.0:
            self.note("note", f"{lost_seconds:.0f} s that an earlier attempt spent without saving are billed too")

    def note_spent(self, *, now: bool = False) -> None:
        """Leave word of what was spent, in case this attempt is killed."""
        self.tally.note(Spent(self.meter.wall_seconds, self.meter.seconds_by_part), now=now)

    def note(self, kind: str, text: str) -> None:
        """Tell the observers, and keep for the receipt."""
        text = redact(text)
        self._keep(kind, text)
        self.tell("note", {"text": text})

    def _keep(self, kind: str, text: str) -> None:
        self.progress.events.append({"at": datetime.now(UTC).isoformat(), "kind": kind, "text": text})

    def _check_before_writing(self) -> None:
        if not (self.folder / CLAIM).is_file():
            raise TenfoldError(
                f"{printable(str(self.folder))}: was deleted or replaced while the run wrote into it; nothing more is"
                " written. Run the same `tenfold train` to start over"
            )
        for name, weight in self.rig.trainable:
            if not bool(torch.isfinite(weight).all()):
                raise NotFinite(
                    f"step {self.progress.step}: its update left NaN or Inf in {name}; nothing of it is saved. Lower"
                    " train.learning_rate"
                )

    def _check_weights_of(self, saved: SavedState, tensors: Mapping[str, torch.Tensor]) -> None:
        wanted = {f"weights/{name}": weight.shape for name, weight in self.rig.trainable}
        found = {name: value.shape for name, value in tensors.items() if name.startswith("weights/")}
        other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if other:
            named = ", ".join(name.removeprefix("weights/") for name in other[:3])
            changed = differences(saved.state.get("environment", {}), environment(self.rig.device))
            raise InputError(
                f"{printable(str(saved.folder))}: holds other weights than this model learns: {named}"
                f"{f' and {len(other) - 3} more' if len(other) > 3 else ''}"
                f"{f'; {changed[0]}' if changed else ''}; name a new output.folder"
            )

    def evaluation_owed(self) -> bool:
        """Whether the evaluation due after the last step was stopped on its way."""
        step = self.progress.step
        done = any(point["step"] == step and point.get("metrics") for point in self.progress.curve)
        return step > 0 and self._evaluation_due(step) and not done

    def _evaluation_due(self, step: int) -> bool:
        if not self.dataset.evaluation:
            return False
        every = self.recipe.train.eval_every_steps
        if every is None:
            return self.schedule.epoch_ends_after(step - 1)
        return step % every == 0 or step == self.schedule.total_steps

    def _spiked(self) -> str | None:
        """ "loss_spike" after one where the recipe says stop, or after so many in a row that the loss is no spike."""
        most = 1 if self.recipe.train.on_loss_spike == "stop" else WINDOW
        return "loss_spike" if self.progress.left_out >= most else None

    def _next_seconds(self, step_seconds: float) -> float:
        """What another step takes, with the evaluation due after it."""
        due = self._evaluation_due(self.progress.step + 1)
        return step_seconds + (self._evaluation_seconds if due else 0.0)

    def why_stop(self, ahead_seconds: float) -> str | None:
        """The signal that asks, or "budget" if so much more work and a checkpoint would pass the limit."""
        if self.stop.requested is not None:
            return self.stop.requested
        hours = (self.meter.wall_seconds + ahead_seconds + self._save_seconds) / 3600
        budget, price = self.recipe.budget, self.meter.usd_per_hour
        if budget.hours is not None and hours > budget.hours:
            return "budget"
        if budget.usd is not None and price is not None and hours * price > budget.usd:
            return "budget"
        return None

    def _log(self, report: StepReport) -> None:
        progress = self.progress
        seconds_per_step = progress.train_seconds / max(1, progress.step)
        point = {
            **self._point(),
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "tokens_per_second": report.tokens / max(1e-9, report.seconds),
        }
        progress.curve.append(point)
        totals = {
            "total_steps": self.schedule.total_steps,
            "gradient_norm": report.gradient_norm,
            "eta_seconds": (self.schedule.total_steps - progress.step) * seconds_per_step,
        }
        self.tell("step", {**point, **totals})

    def _point(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": self.meter.wall_seconds,
            "usd": self.meter.usd,
        }
