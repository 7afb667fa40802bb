"""docs/plan-accuracy.md: every measured row beside what the planner foretells of it today."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence import MEASURED, PRIOR_WIDTH
from predict import Case, cases, without_group

from measure import RESULTS
from tenfold.machine import Efficiency, efficiency_from, evidence

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "plan-accuracy.md"

HEAD = """# Predicted beside measured

`python bench/plan_accuracy.py table` writes this page from the rows under `bench/results/`; `cpu` measures, `fit` fits
the shipped rates. Cold: the rates are fitted to the rows of all other shapes, starting from a guess, so that no row of
a shape helped to foretell it. Calibrated: by the rates that `tenfold calibrate` measured on the same computer, which
saw none of these rows.
"""


def write_table() -> None:
    """Write the page, and print what it comes to."""
    text = "\n".join([HEAD, *_cpu(), *_gpu()])
    DOCUMENT.write_text(text.rstrip() + "\n")
    print("\n".join(line for line in text.splitlines() if line.startswith("- ")))


def _cpu() -> list[str]:
    body = json.loads((RESULTS / "plan_accuracy_cpu.json").read_text())
    every = cases(body)
    calibrations = {row["device"]: efficiency_from(row) for row in body.get("calibrations", [])}
    cold = {case.name: _cold(case, every) for case in every}
    own = {case.name: calibrations.get(case.job.machine.device) for case in every}
    lines = [
        f"## Two cores of an {body['machine']['cpu']}, {body['date']}",
        "",
        "| configuration | memory, MB | foretold | | step, s | cold | | calibrated | | run, s | calibrated | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    memory, by_cold, by_own, walls = [], [], [], []
    for case in every:
        wall, measured = case.row["measured"]["wall_seconds"], case.step_seconds
        cells = [case.name, f"{case.peak_bytes / 1e6:,.0f}", f"{case.predicted_peak_bytes / 1e6:,.0f}"]
        memory.append(case.predicted_peak_bytes / case.peak_bytes - 1)
        found = case.predicted_step_seconds(cold[case.name])
        by_cold.append(found / measured - 1)
        cells += [f"{memory[-1]:+.1%}", f"{measured:.2f}", f"{found:.2f}", f"{by_cold[-1]:+.0%}"]
        known = own[case.name]
        if known is None:
            cells += ["", "", f"{wall:.1f}", "", ""]
        else:
            found, whole = case.predicted_step_seconds(known), case.predicted_wall_seconds(known)
            by_own.append(found / measured - 1)
            walls.append(whole / wall - 1)
            cells += [f"{found:.2f}", f"{by_own[-1]:+.0%}", f"{wall:.1f}", f"{whole:.1f}", f"{walls[-1]:+.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_summary("memory", memory), *_summary("step, cold", by_cold)]
    lines += [*_summary("step, calibrated", by_own), *_summary("whole run, calibrated", walls)]
    return [*lines, *_regret(every, own), ""]


def _gpu() -> list[str]:
    start, names = MEASURED["NVIDIA H200"]
    prior = efficiency_from(next(row for row in evidence()["machines"] if row["match"] == start))
    fitted = efficiency_from(next(row for row in evidence()["machines"] if row["match"] == "NVIDIA H200"))
    every = [case for name in names for case in cases(json.loads((RESULTS / name).read_text()))]
    lines = [
        "## One H200, 2026-11-24",
        "",
        "Rows of bench/gpu, the same that the shipped rates are fitted to: one shape, nothing held out. The held-out",
        "configurations of bench/accuracy/gpu_session.py have not been measured. Memory is what torch has allocated.",
        "",
        "| configuration | memory, GB | foretold | | step, s | guessed rates | | shipped rates | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    memory, guessed, shipped = [], [], []
    for case in every:
        memory.append(case.predicted_peak_bytes / case.peak_bytes - 1)
        guess, known = case.predicted_step_seconds(prior), case.predicted_step_seconds(fitted)
        guessed.append(guess / case.step_seconds - 1)
        shipped.append(known / case.step_seconds - 1)
        lines.append(
            f"| {case.name} | {case.peak_bytes / 1e9:.1f} | {case.predicted_peak_bytes / 1e9:.1f} | {memory[-1]:+.1%} |"
            f" {case.step_seconds:.3f} | {guess:.3f} | {guessed[-1]:+.0%} | {known:.3f} | {shipped[-1]:+.0%} |"
        )
    return [*lines, "", *_summary("memory", memory), *_summary("step by the shipped rates", shipped)]


def _cold(case: Case, every: Sequence[Case]) -> Efficiency:
    dtype = case.job.machine.dtype
    start = next(row for row in evidence()["machines"] if row["match"] == f"cpu, {dtype}")
    prior = replace(case.job.machine, efficiency=efficiency_from(start))
    return without_group(every, case.group, prior, dtype, PRIOR_WIDTH)


def _regret(every: Sequence[Case], own: dict[str, Efficiency | None]) -> list[str]:
    """What the cheapest foretold way costs beyond the cheapest measured one of each recipe."""
    recipes: dict[str, list[Case]] = defaultdict(list)
    for case in every:
        if own[case.name] is not None:
            recipes[case.recipe].append(case)
    regrets: list[float] = []
    for alternatives in recipes.values():
        if len(alternatives) > 1:
            chosen = min(alternatives, key=lambda case: case.predicted_wall_seconds(own[case.name]))  # type: ignore[arg-type]
            cheapest = min(case.row["measured"]["wall_seconds"] for case in alternatives)
            regrets.append(chosen.row["measured"]["wall_seconds"] / cheapest - 1)
    if not regrets:
        return []
    return [f"- regret over {len(regrets)} recipes of several measured ways: mean {statistics.mean(regrets):.1%},"
            f" worst {max(regrets):.1%}"]  # fmt: skip


def _summary(name: str, errors: Sequence[float]) -> list[str]:
    if not errors:
        return []
    sizes: list[Any] = [abs(error) for error in errors]
    return [f"- {name}: mean error {statistics.mean(sizes):.1%}, worst {max(sizes):.1%}, {len(sizes)} rows"]
