"""One thing to time: a model's sizes, the rows of a step, and cuts. Torch only to time it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tenfold.cuts import Cut, FineTune, on_paper
from tenfold.data.tokenize import Sample
from tenfold.job import Job
from tenfold.machine import Machine
from tenfold.recipe.schema import OptimizerName
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

if TYPE_CHECKING:
    from tenfold.rig.rig import Rig, Task
    from tenfold.run.loop import StepReport

LABELS = 8
WARM_STEPS = {"cpu": 2, "cuda": 4}
"""Steps before the first that counts: buffers grow, kernels are chosen, layers compiled; a shape is recorded on its
third micro-batch. On a GPU eager steps of mixed lengths were up to ten times as long until the fourth
(bench/results/plan_accuracy_h200_2026-11-28.json)."""


@dataclass(frozen=True)
class Probe:
    """Steps that all have the same rows."""

    name: str
    config: Mapping[str, Any]
    """The model's config.json."""
    task: Task
    lengths: tuple[int, ...]
    """Tokens of each row of one optimizer step."""
    cuts: tuple[Cut, ...]
    """But fine_tune: weights are random."""
    micro_rows: int = 1_000_000
    """Of the padded layout."""
    optimizer: OptimizerName = "adamw"

    def job(self, machine: Machine) -> Job:
        """One step on paper."""
        samples = self.samples()
        dense = Job(
            shape=shape_from_config(self.name, self.config),
            workload=Workload.from_samples(samples, labels=LABELS if self.task == "classify" else 0),
            machine=machine,
            task=self.task,
            batch_size=len(samples),
            micro_rows=min(self.micro_rows, len(samples)),
            steps_wanted=1,
            epochs=1.0,
            labels=LABELS if self.task == "classify" else 0,
            optimizer=self.optimizer,
        )
        return on_paper((FineTune(), *self.cuts), dense)

    def samples(self) -> list[Sample]:
        """Rows of random tokens, all of which bear loss."""
        draw = Random(0)
        vocabulary = int(self.config["vocab_size"])
        rows: list[Sample] = []
        for line, length in enumerate(self.lengths, 1):
            ids = array("I", (draw.randrange(4, vocabulary) for _ in range(length)))
            label = draw.randrange(LABELS) if self.task == "classify" else None
            mask = None if self.task == "classify" else bytes([0, *[1] * (length - 1)])
            rows.append(Sample(ids, mask, label, "probe", line))
        return rows


@dataclass(frozen=True)
class Timed:
    """What a probe measured."""

    step_seconds: tuple[float, ...]
    """Of the steps after the warm ones."""
    first_step_seconds: float
    build_seconds: float
    peak_bytes: int | None
    """torch's allocator on a GPU, above what was allocated before; None on a CPU."""
    reserved_bytes: int | None

    @property
    def seconds(self) -> float:
        """The median step."""
        return statistics.median(self.step_seconds)


def run_probe(probe: Probe, machine: Machine, enough_seconds: float) -> Timed:
    """Build the model with random weights, cut it, and time its steps until there are three in `enough_seconds`."""
    import torch

    on_gpu = machine.vendor_kind == "cuda"
    before = 0
    if on_gpu:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    rig = build_probe(probe, machine)
    build_seconds = time.perf_counter() - started
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    warm_steps = WARM_STEPS[machine.vendor_kind]
    seconds = _time_steps(probe, rig, enough_seconds, warm_steps)
    peak = reserved = None
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() - before
        reserved = torch.cuda.max_memory_reserved() - before
    return Timed(tuple(seconds[warm_steps:]), seconds[0], build_seconds, peak, reserved)


def build_probe(probe: Probe, machine: Machine) -> Rig:
    """The rig of a probe: its weights random, in the number format that training would have them in."""
    import torch

    from tenfold.cuts import on_rig
    from tenfold.rig.model import build_rig
    from tenfold.rig.rig import Source

    device = torch.device("cuda" if machine.vendor_kind == "cuda" else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(probe.config)))
        rig = build_rig(
            Source(folder),
            probe.task,
            labels=tuple(f"label{number}" for number in range(LABELS)) if probe.task == "classify" else (),
            device=device,
            micro_batch_rows=min(probe.micro_rows, len(probe.lengths)),
            pad_id=0,
            dtype=torch.bfloat16 if machine.dtype == "bfloat16" else torch.float32,
        )
    early = [cut for cut in probe.cuts if cut.before_weights]
    late = [cut for cut in probe.cuts if not cut.before_weights]
    return on_rig(late, _with_random_weights(on_rig(early, rig)))


def _with_random_weights(rig: Rig) -> Rig:
    """What `load_pretrained` makes of files, from noise: frozen layers stored as the skeleton's are."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from tenfold.rig.quantizing import store_linears, stored_as

    kind = AutoModelForSequenceClassification if rig.task == "classify" else AutoModelForCausalLM
    dtype = next(rig.model.parameters()).dtype
    torch.manual_seed(0)
    with rig.device:
        model = kind.from_config(rig.model.config, attn_implementation="sdpa", dtype=dtype, trust_remote_code=False)
    if (storage := stored_as(rig.model)) is not None:
        store_linears(model, storage, rig.new_modules, rig.device)
    return replace(rig, model=model)


def _time_steps(probe: Probe, rig: Rig, enough_seconds: float, warm_steps: int) -> list[float]:
    """Seconds of each step, the warm ones first."""
    seconds: list[float] = []

    def after_step(report: StepReport) -> bool:
        seconds.append(report.seconds)
        counted = seconds[warm_steps:]
        return len(counted) < 3 or (sum(counted) < enough_seconds and len(counted) < 200)

    train_probe(probe, rig, after_step)
    return seconds


def train_probe(probe: Probe, rig: Rig, after_step: Callable[[StepReport], bool]) -> None:
    """The product's loop over the rows of a probe, on its rig, until `after_step` says no."""
    from tenfold.recipe import TrainWish
    from tenfold.run.loop import train_steps
    from tenfold.run.optimizer import make_optimizer
    from tenfold.run.schedule import make_schedule

    wish = TrainWish(max_steps=10_000, batch_size=len(probe.lengths), optimizer=probe.optimizer)
    train_steps(
        rig,
        probe.samples(),
        make_schedule(wish, len(probe.lengths), 1e-5),
        make_optimizer(rig, wish),
        first_step=0,
        max_gradient_norm=1.0,
        admit=lambda *step: True,
        after_step=after_step,
        tell=_refuse_to_shrink,
    )


def _refuse_to_shrink(text: str) -> None:
    """A step that became smaller is not the one that was counted."""
    raise MemoryError(text)
