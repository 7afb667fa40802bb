"""docs/plan-accuracy.md: every measured row beside what the planner foretells of it today."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evidence import MEASURED, PRIOR_WIDTH
from predict import Case, cases, without_group
from recalibrate import overheads_today, recalibrated

from measure import RESULTS
from tenfold.machine import Efficiency, Machine, efficiency_from, evidence

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "plan-accuracy.md"

HEAD = """# Predicted beside measured

`python bench/plan_accuracy.py table` writes this page from the rows under `bench/results/`; `cpu` measures, `fit` fits
the shipped rates. Cold: the rates are fitted to the rows of all other shapes, starting from a guess, so that no row of
a shape helped to foretell it. Calibrated: by the rates that `tenfold calibrate` finds from its probes' seconds on the
same computer, starting from the guess for any CPU: none of these rows was seen. Memory is foretold of the engine that
was measured: until 2026-11-27 the loss held the gradient of a chunk while it made the next (`held_gradient_bytes` of
bench/accuracy/predict.py), and plans count it no more. Rows of an engine that is no more are left out
(`_ran_otherwise` there). Hosts are shared: since 2026-11-28 a product and a copy are timed before and after each run;
drift is how far they are, together, from what they took at the calibration.
"""

OTHERS = {
    "held-out": ": configurations that nothing was fitted to",
    "unseen": ": others that nothing was fitted to; the holes of a CPU's heap were found in some of them",
    "fresh": ": others that nothing was fitted to, named when nothing of memory was to be changed any more",
}
"""By the end of a file's name, what a table's title says more."""


def write_table() -> None:
    """Write the page, and print what it comes to."""
    paths = sorted(RESULTS.glob("plan_accuracy_cpu*.json"))
    found = {path: _cpu(path) for path in paths}
    computers = [line for path in paths for line in found[path][0]]
    unfitted = [miss for path in paths if path.stem.rsplit("_", 1)[-1] in OTHERS for miss in found[path][1]]
    computers += [
        f"## All {len(unfitted)} configurations of a CPU that nothing was fitted to",
        "",
        *_cpu_summary(unfitted),
        "",
    ]
    sessions = [_calibrated_gpu(path) for path in sorted(RESULTS.glob("plan_accuracy_h200_*.json"))]
    calibrated = [line for session in sessions for line in session.lines]
    together = [
        f"## All {len(sessions)} sessions that began with a calibration",
        "",
        *_summary("memory", [miss for session in sessions for miss in session.memory]),
        *_summary("step, shipped rates", [miss for session in sessions for miss in session.shipped]),
        *_summary("step, calibrated", [miss for session in sessions for miss in session.calibrated]),
        *_summary("whole run, calibrated", [miss for session in sessions for miss in session.runs]),
    ]
    text = "\n".join([HEAD, *computers, *_gpu(), "", *calibrated, *together])
    DOCUMENT.write_text(text.rstrip() + "\n")
    print("\n".join(line for line in text.splitlines() if line.startswith("- ")))


class _Miss(NamedTuple):
    """A row, and by how much what is foretold of it is off; None where nothing was calibrated for its number format."""

    case: Case
    memory: float
    cold: float
    calibrated: float | None
    run: float | None
    cells: list[str]


def _cpu(path: Path) -> tuple[list[str], list[_Miss]]:
    """A table, and what is in it."""
    body = json.loads(path.read_text())
    every = cases(body)
    machines = {case.job.machine.device: case.job.machine for case in every}
    calibrations = {
        (row.get("number", 0), row["device"]): _calibrated(row, machines[row["device"]])
        for row in body.get("calibrations", [])
        if row["device"] in machines
    }
    own = {case.name: calibrations.get((case.row.get("calibration", 0), case.job.machine.device)) for case in every}
    misses = [_miss(case, _cold(case, every, f"cpu, {case.job.machine.dtype}"), own[case.name]) for case in every]
    others = OTHERS.get(path.stem.rsplit("_", 1)[-1], "")
    rate = f"{body['flops']['float32'] / 1e9:,.0f} GFLOP/s"
    lines = [
        f"## Two cores of an {body['machine']['cpu']}, {rate}, {body['date']}{others}",
        "",
        "| configuration | memory, MB | foretold | | step, s | cold | | calibrated | | run, s | calibrated | | drift |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(f"| {' | '.join(miss.cells)} |" for miss in misses),
    ]
    told = [case.on(machine) for case in every if case.steady and (machine := own[case.name]) is not None]
    regret = _regret(told, lambda case: case.predicted_wall_seconds(), _wall_seconds)
    return [*lines, "", *_cpu_summary(misses), *regret, ""], misses


def _miss(case: Case, cold: Efficiency, own: Machine | None) -> _Miss:
    wall, measured = case.row["measured"]["wall_seconds"], case.step_seconds
    memory = case.predicted_peak_bytes / case.peak_bytes - 1
    by_others = case.predicted_step_seconds(cold)
    cells = [
        case.name, f"{case.peak_bytes / 1e6:,.0f}", f"{case.predicted_peak_bytes / 1e6:,.0f}", f"{memory:+.1%}",
        f"{measured:.2f}", f"{by_others:.2f}", f"{by_others / measured - 1:+.0%}",
    ]  # fmt: skip
    drift = f"{case.row['drift']:.0%}" if "drift" in case.row else ""
    if own is None:
        cells += ["", "", f"{wall:.1f}", "", "", drift]
        return _Miss(case, memory, by_others / measured - 1, None, None, cells)
    step, run = case.predicted_step_seconds(own.efficiency), case.on(own).predicted_wall_seconds()
    cells += [
        f"{step:.2f}",
        f"{step / measured - 1:+.0%}",
        f"{wall:.1f}",
        f"{run:.1f}",
        f"{run / wall - 1:+.0%}",
        drift,
    ]
    return _Miss(case, memory, by_others / measured - 1, step / measured - 1, run / wall - 1, cells)


def _cpu_summary(misses: Sequence[_Miss]) -> list[str]:
    """Of all rows, and of those whose computer was as fast as at its calibration."""
    known = [(miss.case.steady, miss.calibrated, miss.run) for miss in misses]
    lines = [
        *_summary("memory", [miss.memory for miss in misses]),
        *_summary("step, cold", [miss.cold for miss in misses]),
        *_summary("step, calibrated", [step for _, step, _ in known if step is not None]),
        *_summary("whole run, calibrated", [run for _, _, run in known if run is not None]),
    ]
    if all(steady for steady, _, _ in known):
        return lines
    return [
        *lines,
        *_summary("step, calibrated, drift at most 8 %", [step for ok, step, _ in known if ok and step is not None]),
        *_summary("whole run, calibrated, drift at most 8 %", [run for ok, _, run in known if ok and run is not None]),
    ]


def _step_seconds(case: Case) -> float:
    return case.step_seconds


def _wall_seconds(case: Case) -> float:
    return case.row["measured"]["wall_seconds"]


def _gpu() -> list[str]:
    start, (name,) = MEASURED["NVIDIA H200"]
    body = json.loads((RESULTS / name).read_text())
    every = cases(body)
    cold = {case.name: _cold(case, every, start) for case in every}
    lines = [
        f"## One {body['gpu']}, {body['date']}",
        "",
        "Random weights, so that a step is all there is; memory is what torch has allocated. No row was used for the",
        "formulas of memory but in two places that these rows showed to be missing: the gradient of a chunk of the",
        "loss is held while the next is made, and a layer norm at the end of a block leaves float32. `by 8`: rows of",
        "a micro-batch; `repeat`: blocks recomputed. Nine rows of mixed lengths are of another host, four days later:",
        "what they attend with is another since.",
        "",
        "| configuration | memory, GB | foretold | | step, s | cold | |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    memory, steps = [], {True: [], False: []}
    for case in every:
        memory.append(case.predicted_peak_bytes / case.peak_bytes - 1)
        found = case.predicted_step_seconds(cold[case.name])
        steps[case.job.compiled].append(found / case.step_seconds - 1)
        lines.append(
            f"| {case.name} | {case.peak_bytes / 1e9:.2f} | {case.predicted_peak_bytes / 1e9:.2f} | {memory[-1]:+.1%} |"
            f" {case.step_seconds:.3f} | {found:.3f} | {found / case.step_seconds - 1:+.0%} |"
        )
    lines += ["", *_summary("memory", memory), *_summary("step, cold", [*steps[True], *steps[False]])]
    lines += _summary("of these compiled", steps[True])
    lines += _summary("and eager, where the host's launches are most of a step", steps[False])
    return [*lines, *_regret(every, lambda case: case.predicted_step_seconds(cold[case.name]), _step_seconds)]


class _Session(NamedTuple):
    """A table, and how far off what is."""

    lines: list[str]
    memory: list[float]
    shipped: list[float]
    calibrated: list[float]
    runs: list[float]


def _calibrated_gpu(path: Path) -> _Session:
    """Of a session that began with `tenfold calibrate`."""
    body = json.loads(path.read_text())
    every = cases({**body, "benchmark": "plan-accuracy-gpu"})
    known = every[0].job.machine
    (row,) = body["calibrations"]
    found = _calibrated(row, known)
    lines = [
        f"## Another {body['gpu']}, {body['date']}",
        "",
        f"Calibrated with {len(row['probes'])} of {len(row['definitions'])} probes: a minute was not enough for more.",
        "Shipped: by the rates that were fitted to the rows above, of another host. A run's seconds are those of its",
        "whole process.",
        "",
        "| configuration | memory, GB | foretold | | step, s | shipped | | calibrated | | run, s | calibrated | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    memory, shipped, own, walls = [], [], [], []
    for case in every:
        memory.append(case.predicted_peak_bytes / case.peak_bytes - 1)
        cells = [
            case.name,
            f"{case.peak_bytes / 1e9:.2f}",
            f"{case.predicted_peak_bytes / 1e9:.2f}",
            f"{memory[-1]:+.1%}",
        ]
        if "configuration" in case.row:
            wall, whole = case.row["measured"]["wall_seconds"], case.on(found).predicted_wall_seconds()
            walls.append(whole / wall - 1)
            cells += ["", "", "", "", "", f"{wall:.1f}", f"{whole:.1f}", f"{walls[-1]:+.0%}"]
        else:
            measured = case.step_seconds
            both = [case.predicted_step_seconds(rates) for rates in (known.efficiency, found.efficiency)]
            shipped.append(both[0] / measured - 1)
            own.append(both[1] / measured - 1)
            cells += [f"{measured:.3f}", f"{both[0]:.3f}", f"{shipped[-1]:+.0%}", f"{both[1]:.3f}", f"{own[-1]:+.0%}"]
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_summary("memory", memory), *_summary("step, shipped rates", shipped)]
    lines += [*_summary("step, calibrated", own), *_summary("whole run, calibrated", walls), ""]
    return _Session(lines, memory, shipped, own, walls)


def _calibrated(row: Mapping[str, Any], machine: Machine) -> Machine:
    """With the rates and the overheads that a calibration's row comes to today."""
    return replace(machine, efficiency=recalibrated(row, machine), overheads=overheads_today(row, machine))


def _cold(case: Case, every: Sequence[Case], start: str) -> Efficiency:
    """Rates fitted to the rows of all other shapes."""
    dtype = case.job.machine.dtype
    guess = next(row for row in evidence()["machines"] if row["match"] == start)
    prior = replace(case.job.machine, efficiency=efficiency_from(guess))
    return without_group(every, case.group, prior, dtype, PRIOR_WIDTH)


def _regret(every: Sequence[Case], foretold: Callable[[Case], float], measured: Callable[[Case], float]) -> list[str]:
    """What the cheapest foretold way costs beyond the cheapest measured one of each recipe."""
    recipes: dict[str, list[Case]] = defaultdict(list)
    for case in every:
        recipes[case.recipe].append(case)
    regrets: list[float] = []
    for alternatives in recipes.values():
        if len(alternatives) > 1:
            chosen = min(alternatives, key=foretold)
            regrets.append(measured(chosen) / min(map(measured, alternatives)) - 1)
    if not regrets:
        return []
    return [f"- regret over {len(regrets)} recipes of several measured ways: mean {statistics.mean(regrets):.1%},"
            f" worst {max(regrets):.1%}"]  # fmt: skip


def _summary(name: str, errors: Sequence[float]) -> list[str]:
    if not errors:
        return []
    sizes: list[Any] = [abs(error) for error in errors]
    return [f"- {name}: mean error {statistics.mean(sizes):.1%}, worst {max(sizes):.1%}, {len(sizes)} rows"]
