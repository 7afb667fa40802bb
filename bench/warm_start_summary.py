"""One result of the rows that bench/warm_start.py leaves, and the table of docs/warm-start.md.

Legs of one part differ in the start of the new rows alone, so that a step is the same work in all of them. So compute
is counted in steps: those up to a loss, between two evaluations by the straight line, and as many as the same process
would have made in the time that the rows took to initialise. That does not depend on how fast a computer is, so that
legs of several are set side by side. Evaluations are not counted. Ratios are within a seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measure import interval, write_result

OWN = "own vocabulary"


def initialise_steps(row: dict[str, Any]) -> float:
    """Steps that could have been made instead of initialising."""
    return row["initialise_seconds"] / row["seconds_per_step"]


def steps_to(row: dict[str, Any], target: float) -> float | None:
    """Initialisation and training until the loss is `target`; None if it never is."""
    before: list[float] | None = None
    for step, loss in row["curve"]:
        if loss <= target:
            share = 1.0 if before is None else (before[1] - target) / (before[1] - loss)
            first = 0.0 if before is None else before[0]
            return initialise_steps(row) + first + share * (step - first)
        before = [step, loss]
    return None


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each leg of each part over the seeds; ratios are within a seed."""
    found: dict[str, Any] = {}
    by_key = {(row["part"], row["leg"], row["seed"]): row for row in rows}
    for part, leg in dict.fromkeys((row["part"], row["leg"]) for row in rows):
        seeds = sorted({row["seed"] for row in rows if (row["part"], row["leg"]) == (part, leg)})
        legs = [by_key[part, leg, seed] for seed in seeds]
        finals = interval([row["final"] for row in legs])
        summary: dict[str, Any] = {"seeds": seeds, f"final {legs[0]['metric']}": finals}
        summary["train seconds"] = interval([row["train_seconds"] for row in legs])
        if leg != OWN:
            summary["initialise, in steps"] = interval([initialise_steps(row) for row in legs])
        kept = [row["retention"] for row in legs if row["retention"]]
        if kept:
            summary[f"old domain, {kept[0]['unit']}"] = {
                name: interval([one[name] for one in kept]) for name in ("before", "start", "after")
            }
        for control in ("random", "mean") if part == "classics" else ():
            if leg in (control, OWN) or any((part, control, seed) not in by_key for seed in seeds):
                continue
            shares = []
            for row in legs:
                other = by_key[part, control, row["seed"]]
                reached = steps_to(row, other["final"])
                whole = initialise_steps(other) + other["curve"][-1][0]
                shares.append(None if reached is None else reached / whole)
            known = [share for share in shares if share is not None]
            summary[f"share of the compute of {control} to its final loss"] = (
                interval(known) if len(known) == len(shares) and len(known) > 1 else shares
            )
        found[f"{part}: {leg}"] = summary
    for part in dict.fromkeys(row["part"] for row in rows):
        found[f"{part}: saving"] = saving(part, by_key)
    return found


def saving(part: str, by_key: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """Tokens and training seconds with the new vocabulary beside the model's own, foretold and measured; of documents
    that were held out and did not help to choose it, and of those that did."""
    seeds = [seed for (p, leg, seed) in by_key if p == part and leg == OWN and (part, "subtokens", seed) in by_key]
    names = ("held-out tokens foretold", "held-out tokens", "tokens", "seconds foretold", "seconds")
    shares: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        own, new = by_key[part, OWN, seed], by_key[part, "subtokens", seed]
        for name, key in (
            ("held-out tokens", "held_out_tokens"),
            ("tokens", "tokens_trained"),
            ("seconds foretold", "foretold_train_seconds"),
            ("seconds", "train_seconds"),
        ):
            shares[name].append(1 - new[key] / own[key])
        shares["held-out tokens foretold"].append(1 - new["vocabulary"]["share_on_new_text"])
    return {f"{name} saved": interval(values) if len(values) > 1 else values for name, values in shares.items()}


def merge(work: Path) -> None:
    """A result of each part and number of epochs that there are rows of in `work`, and its table."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(work.glob("row-*.json")):
        found = json.loads(path.read_text())
        row = found["row"]
        groups.setdefault(f"warm_start_{row['part']}_{row['epochs']:g}epochs", []).append(found)
    for name, members in groups.items():
        machines = [found["machine"] for found in members]
        own = ("cpu", "cores", "os", "load_before")
        rows = [
            {**found["row"], "eval_every_steps": found["settings"]["eval_every_steps"]}
            | {"machine": {key: machine[key] for key in own}}
            for found, machine in zip(members, machines, strict=True)
        ]
        summary = summarise(rows)
        most = max(machines, key=lambda machine: machine["cores"])
        path = write_result(name, members[0]["settings"], rows, summary, most)
        print(f"{path}\n\n{table(summary)}\n\n{json.dumps(summary, indent=1)}")


def table(summary: dict[str, Any]) -> str:
    """The rows of legs as Markdown: means with 95 % intervals, or the values where there is one."""
    heads = ("new rows", "seeds", "at the end", "compute to random's end", "to mean's", "start, steps", "old domain")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, of in summary.items():
        if name.endswith(": saving"):
            continue
        final = next(value for key, value in of.items() if key.startswith("final "))
        shares = [of.get(f"share of the compute of {control} to its final loss") for control in ("random", "mean")]
        old = next((value for key, value in of.items() if key.startswith("old domain")), {})
        kept = ", ".join(f"{old[moment]['median']:.3f}" for moment in ("before", "start", "after") if moment in old)
        cells = [_shown(final), *map(_shown, shares), _shown(of.get("initialise, in steps"))]
        lines.append(f"| {' | '.join([name, str(len(of['seeds'])), *cells, kept])} |")
    return "\n".join(lines)


def _shown(found: Any) -> str:
    if found is None:
        return ""
    if isinstance(found, list):
        return ", ".join("never" if value is None else f"{value:.2f}" for value in found)
    if "low" not in found:
        return f"{found['median']:.3f}"
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
