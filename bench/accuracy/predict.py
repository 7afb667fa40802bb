"""Rows of a results file as jobs on paper: what the planner foretells of them today, without running anything."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configurations import Configuration

from shapes import SHAPES
from tenfold.calibrate.probe import Probe
from tenfold.cuts import Checkpoint, cut_from_dict
from tenfold.job import Job, Work, checking_work, evaluation_work, moments, seconds_on, training_work
from tenfold.job.fit import Observation, fit_efficiency
from tenfold.job.fullest import fullest_head_rows
from tenfold.job.seconds import process_seconds
from tenfold.machine import Efficiency, Machine, gpus, local_machine
from tenfold.planner.options import (
    checkpoint_wish,
    fine_tune_options,
    fuse_options,
    lora_options,
    pack_options,
    quantize_options,
)
from tenfold.planner.search import dense_job
from tenfold.planner.ways import fold
from tenfold.recipe import recipe_from_dict
from tenfold.shape import shape_from_config
from tenfold.shape.shape import Stored
from tenfold.workload import Workload


@dataclass(frozen=True)
class Case:
    """One measured configuration and what is counted of it."""

    row: dict[str, Any]
    job: Job
    work: Work
    """Of one step."""

    @property
    def name(self) -> str:
        return self.row["name"]

    @property
    def group(self) -> str:
        """Configurations of one shape: rates are fitted without all of them together."""
        return self.row.get("shape") or self.row["configuration"]["shape"]

    @property
    def recipe(self) -> str:
        return self.row.get("recipe") or Configuration(**self.row["configuration"]).recipe

    @property
    def step_seconds(self) -> float:
        """The median step where all have the same rows; else the mean once warm, as the work of a step is a mean."""
        steps = self.row["measured"]["step_seconds"]
        return statistics.median(steps) if "lengths" in self.row else statistics.mean(steps[1:])

    @property
    def steady(self) -> bool:
        """The computer was as fast as when it was calibrated; rows of before 2026-11-28 do not say."""
        return self.row.get("drift", 0.0) <= MOST_DRIFT

    @property
    def peak_bytes(self) -> float:
        return self.row["measured"]["peak_bytes"]

    @property
    def predicted_peak_bytes(self) -> float:
        """As measured: on a GPU what torch has allocated, by the engine that was measured."""
        unseen = ("libraries", "fragmentation") if self.job.machine.vendor_kind == "cuda" else ()
        held = held_gradient_bytes(self.job) if self.row.get("held_gradient", True) else 0.0
        return max(
            sum(size for kind, size in moment.bytes_by_kind.items() if kind not in unseen)
            + (held if moment.name == "loss" else 0.0)
            for moment in moments(self.job)
        )

    def predicted_step_seconds(self, efficiency: Efficiency) -> float:
        from tenfold.job import work_seconds

        return work_seconds(self.work, self.job.machine, efficiency)

    def on(self, machine: Machine) -> Case:
        """The same, told by other rates and overheads."""
        return replace(self, job=replace(self.job, machine=machine))

    def predicted_wall_seconds(self) -> float:
        machine = self.job.machine
        if self.row["configuration"]["lengths"] != "own":
            machine = replace(machine, overheads=replace(machine.overheads, tokens_per_second=WHOLE_WORDS))
        checking = checking_work(self.job, self.row.get("checked_tokens", WHOLE_ROW))
        return process_seconds(
            seconds_on(self.job, machine, training_work(self.job), evaluation_work(self.job), checking)
        )


WHOLE_ROW = 2**31
"""Tokens of a row that the checks before the first step ran, until later on 2026-11-28: all of them."""

WHOLE_WORDS = 1.2e6
"""Tokens a second by the tokenizer that knows whole words alone (bench/shapes.py), which all but a model's own rows
have: 0.9 and 1.3 million on a GPU's host (bench/results/plan_accuracy_h200_2026-11-28_warm.json,
mixed_lengths_h200_2026-11-28.json), 1.2 million in the median of plan_accuracy_cpu_2026-11-28_held-out.json. What is
shipped is for those that merge pieces of words."""


def held_gradient_bytes(job: Job) -> float:
    """The gradient of a chunk of the loss, which the engine held while it made the next one until 2026-11-27.

    Rows measured before say so by not saying anything: those measured since hold `"held_gradient": false`.
    """
    if job.task == "classify" or job.loss_rows is None or fullest_head_rows(job) <= job.loss_rows:
        return 0.0
    return job.loss_rows * job.shape.vocab_size * job.dtype_bytes


def cases(body: dict[str, Any]) -> list[Case]:
    """Every row that was measured."""
    if body["benchmark"] == "gpu-rows":
        body = {**body, "benchmark": "gpu", "gpu": H200, "rows": [_as_probe(r) for r in body["rows"] if _is_ours(r)]}
    rows = [row for row in body["rows"] if "measured" in row]
    if body["benchmark"].endswith("gpu"):
        machine = next((one for one in gpus().values() if one.device == body.get("gpu")), None) or local_machine()
        here = replace(machine, here=True)
        jobs = [_probe_job(row, here) if "lengths" in row else _recipe_job(row, here) for row in rows]
    else:
        here = local_machine()
        if here.name not in body["machine"]["cpu"] and body["machine"]["cpu"] not in here.name:
            raise SystemExit(f"these rows were measured on {body['machine']['cpu']}; make the table there")
        here = replace(here, flops=body["flops"])  # processors of one name differ in theirs
        jobs = [_recipe_job(row, here) for row in rows]
    every = [Case(row, job, _per_step(job)) for row, job in zip(rows, jobs, strict=True)]
    return [case for case in every if not _ran_otherwise(case)]


def _ran_otherwise(case: Case) -> bool:
    """By an engine that is no more, late on 2026-11-28 at the latest: mixed lengths, when padded rows of decoders had a
    mask and GPUs planned attention for each shape; and runs that compiled the first layer once more for itself."""
    job = case.job
    if job.compiled and "configuration" in case.row:
        return not case.row.get("one_graph", False)
    mixed = job.workload.longest * job.workload.rows > job.workload.tokens
    if job.machine.vendor_kind == "cpu":
        mixed = mixed and job.packed_tokens is None and job.shape.kind == "decoder"
    return mixed and not job.steady and not case.row.get("unplanned", False)


MOST_DRIFT = 0.08
"""By which a computer's speed may differ, before and after a leg, from what it was at its calibration: the spread of
repeated runs on a quiet one."""

H200 = "NVIDIA H200"
"""bench/gpu's rows were all measured on one, by the device's own account (docs/speed.md)."""

SETTINGS = json.loads((Path(__file__).resolve().parents[1] / "gpu" / "cuts.json").read_text())


def _is_ours(row: dict[str, Any]) -> bool:
    """One of tenfold's rows, of rows that are all equally long."""
    return row.get("system") == "tenfold" and row.get("workload") == "fixed"


def _as_probe(row: dict[str, Any]) -> dict[str, Any]:
    """A row of bench/gpu as one of a GPU session."""
    sized = [{"tokens": int(row["arguments"]["micro_tokens"]), **cut} if cut["cut"] == "pack" else cut
             for cut in SETTINGS[row["setting"]] if cut["cut"] != "fine_tune"]  # fmt: skip
    return {
        "name": f"{row['shape']} {row['rows']} x {row['length']} {row['name'].removeprefix('ours-')}",
        "shape": row["shape"],
        "recipe": row["workload"],
        "config": SHAPES[row["shape"]],
        "task": "text",
        "lengths": [row["length"]] * row["rows"],
        "cuts": sized,
        "micro_rows": row["rows"],
        "optimizer": "adamw",
        "measured": {"step_seconds": row["step_seconds"], "peak_bytes": row["peak_allocated_bytes"]},
    }


def _per_step(job: Job) -> Work:
    whole = training_work(job)
    return Work(**{name: value / job.steps for name, value in vars(whole).items()})


def _probe_job(row: dict[str, Any], machine: Machine) -> Job:
    cuts = tuple(cut_from_dict(cut) for cut in row["cuts"])
    probe = Probe(
        row["name"], row["config"], row["task"], tuple(row["lengths"]), cuts, row["micro_rows"], row["optimizer"]
    )
    return probe.job(machine)


def _recipe_job(row: dict[str, Any], here: Machine) -> Job:
    """The job that the planner priced when the row was measured: all settings are forced, none is left to choose."""
    configuration = Configuration(**row["configuration"])
    told = row["workload"]
    lengths = tuple((length, count) for length, count in told["lengths"])
    workload = Workload(lengths, told["loss_tokens"], told["evaluation_tokens"], told["labels"])
    stored = Stored(row["stored"]["parameters"], row["stored"]["bytes"], row["stored"]["dtype"])
    shape = shape_from_config(configuration.shape, row["config"], None, stored)
    recipe = recipe_from_dict(
        {"model": "m", "task": configuration.task, "data": {"train": "rows.jsonl"}, **configuration.sections()}
    )
    dense = dense_job(recipe, shape, workload, here.computing_in(recipe.train.dtype))
    rows = recipe.train.micro_batch_size or recipe.train.batch_size
    dense = replace(dense, micro_rows=rows, checked="check" in row["measured"]["seconds_by_part"])
    wish = checkpoint_wish(recipe, shape.layers)
    options = (
        *fine_tune_options(recipe),
        *quantize_options(recipe),
        *lora_options(recipe),
        *pack_options(recipe, workload),
        *fuse_options(recipe),
        *((wish,) if isinstance(wish, Checkpoint) else ()),
    )
    return fold(options, dense)[0]


def without_group(every: Sequence[Case], group: str, prior: Machine, dtype: str, prior_width: float) -> Efficiency:
    """Rates fitted to all cases of a number format but those of one shape."""
    seen = [
        Observation(case.work, case.step_seconds)
        for case in every
        if case.group != group and case.job.machine.dtype == dtype
    ]
    return fit_efficiency(prior, seen, prior_width)
