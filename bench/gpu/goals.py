"""The goals of speed beside what was measured, and beside the floor of limits.py: which of them can be met at all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from limit_passes import adapter_bytes

from shapes import SHAPES

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """So many times the useful tokens/s of a peer."""

    shape: str
    workload: str
    size: str
    ours: str
    """How the names of our systems begin; the fastest counts."""
    peer: str
    times: float
    kind: str
    """Of the floor: what the products are computed in."""
    in_less_memory: bool = False
    """Only rows of ours count whose peak is below the peer's."""

    @property
    def train(self) -> str:
        """What learns."""
        return "full" if self.ours.startswith("ours-full") else "lora"


SHORT, LONG = "8 x 2048", "2 x 8192"

GOALS = (
    Goal("llama-8b", "fixed", SHORT, "ours-bf16", "unsloth-best", 1.2, "bf16"),
    Goal("llama-8b", "fixed", SHORT, "ours-fp8", "unsloth-best", 1.75, "fp8"),
    Goal("llama-8b", "fixed", SHORT, "ours-fp8", "unsloth", 2.5, "fp8"),
    Goal("llama-8b", "fixed", SHORT, "ours-fp8", "unsloth", 1.7, "fp8", in_less_memory=True),
    Goal("llama-8b", "fixed", SHORT, "ours-nf4", "unsloth-qlora", 1.3, "fp8", in_less_memory=True),
    Goal("llama-8b", "fixed", LONG, "ours-bf16", "unsloth-best", 1.25, "bf16"),
    Goal("llama-8b", "fixed", LONG, "ours-fp8", "unsloth-best", 1.7, "fp8"),
    Goal("llama-8b", "packed", SHORT, "ours-fp8", "unsloth-best", 1.5, "fp8"),
    Goal("llama-1b", "packed", SHORT, "ours-bf16", "unsloth-best", 2.0, "bf16"),
    Goal("llama-1b", "packed", SHORT, "ours-fp8", "unsloth-best", 2.0, "fp8"),
    Goal("qwen3-1.7b", "fixed", SHORT, "ours-full", "full-liger", 1.5, "bf16", in_less_memory=True),
    Goal("qwen3-1.7b", "fixed", SHORT, "ours-full", "full-liger-best", 1.5, "bf16", in_less_memory=True),
    Goal("llama-8b", "fixed", SHORT, "ours-full", "full-liger", 1.5, "bf16", in_less_memory=True),
)

COLUMNS = (
    "model", "rows", "goal", "tokens/s wanted", "measured", "times", "floor on", "products and attention",
    "with passes", "in one round", "wanted, of the last", "with adapters",
)  # fmt: skip

CARD = "NVIDIA H200"
"""All rows were measured on one; its floors count before another card's."""

FIGURES = (
    "most_tokens_per_second", "most_tokens_per_second_with_passes", "most_tokens_per_second_in_one_round",
)  # fmt: skip
"""Of limits.py. Files of 2026-11-27 have the first alone."""


class Floor(NamedTuple):
    """What limits.py found of a goal's step, in tokens/s; None where it did not look."""

    card: str
    figures: tuple[float | None, ...]
    """In the order of FIGURES."""
    with_adapters: float | None
    """With the passes, and the adapters' products as passes of their own (limit_passes.py): by their bytes."""


def floor_of(limits: Rows, goal: Goal) -> Floor | None:
    """The latest floor of a goal's step, of CARD if there is one; None if there is none.

    A file from before its passes were timed is completed: their bytes, as another card's file counts them, at the rate
    that copies reach on its card.
    """
    same = [
        body
        for body in limits
        if (body["shape"], f"{body['rows']} x {body['length']}") == (goal.shape, goal.size)
        and (body.get("workload", "fixed"), body.get("train", "lora")) == (goal.workload, goal.train)
        and goal.kind in body[FIGURES[0]]
    ]
    if not same:
        return None
    body = max(same, key=lambda one: (card_of(one) == CARD, one["date"]))
    products, passes, whole = (body.get(figure, {}).get(goal.kind) for figure in FIGURES)
    counted = next((one["kinds"][goal.kind]["moved_bytes"] for one in same if "kinds" in one), None)
    rates = [one["copied_bytes_per_second"] for one in limits if card_of(one) == card_of(body) and FIGURES[1] in one]
    if passes is None and counted is not None and rates:
        passes = 1 / (1 / products + counted / max(rates) / _tokens(goal))
    adapted = None
    if goal.train == "lora" and passes is not None and rates:
        config = SHAPES[goal.shape]
        each = config["num_hidden_layers"] * adapter_bytes(config, goal.kind)
        adapted = 1 / (1 / passes + each / max(rates))
    return Floor(card_of(body), (products, passes, whole), adapted)


def _tokens(goal: Goal) -> int:
    rows, length = map(int, goal.size.split(" x "))
    return rows * length


def card_of(body: Mapping[str, Any]) -> str:
    """Which card a file's numbers are from."""
    return str(body["environment"]["gpu"])


def goal_lines(rows: Rows, limits: Rows, titles: Mapping[str, str]) -> list[list[str]]:
    """The table's cells, a line for each goal whose peer was measured; what is missing is a dash."""
    found: list[list[str]] = []
    for goal in GOALS:
        systems = _systems(rows, goal)
        if goal.peer not in systems:
            continue
        peer = systems[goal.peer]
        wanted = goal.times * peer.tokens_per_second
        count = [one for name, one in systems.items() if name.startswith(goal.ours)]
        if goal.in_less_memory:
            count = [one for one in count if one.peak_bytes < peer.peak_bytes]
        ours = max((one.tokens_per_second for one in count), default=None)
        floor = floor_of(limits, goal)
        figures = (None,) * len(FIGURES) if floor is None else floor.figures
        last = next((figure for figure in reversed(figures) if figure is not None), None)
        found.append(
            [
                titles[goal.shape],
                f"{goal.size}, {'full fine-tuning' if goal.train == 'full' else f'products in {goal.kind}'}"
                + (", short rows" if goal.workload == "packed" else ""),
                f"{goal.times:g} x {goal.peer}{' in less memory' if goal.in_less_memory else ''}",
                f"{wanted:,.0f}",
                "-" if ours is None else f"{ours:,.0f}",
                "-" if ours is None else f"{ours / peer.tokens_per_second:.2f}",
                "-" if floor is None else floor.card.removeprefix("NVIDIA ").partition(" ")[0],
                *("-" if figure is None else f"{figure:,.0f}" for figure in figures),
                "-" if last is None else f"{100 * wanted / last:.0f} %",
                "-" if floor is None or floor.with_adapters is None else f"{floor.with_adapters:,.0f}",
            ]
        )
    return found


class _Measured(NamedTuple):
    tokens_per_second: float
    peak_bytes: int


def _systems(rows: Rows, goal: Goal) -> dict[str, _Measured]:
    """Median speed and largest peak by system, of the goal's shape and rows."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        size = f"{row['settings']['rows']} x {row['settings']['length']}"
        place = (row["shape"], row["workload"], size)
        if "tokens_per_second" in row and place == (goal.shape, goal.workload, goal.size):
            found.setdefault(row["sized_name"], []).append(row)
    return {
        name: _Measured(
            statistics.median(row["tokens_per_second"] for row in repeats),
            max(row.get("peak_allocated_bytes", 0) for row in repeats),
        )
        for name, repeats in found.items()
    }
