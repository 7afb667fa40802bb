"""A plan as people see it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from measured import LORA_MEASURED
from paper import CONFIG, ROWS
from tenfold.machine import catalogue
from tenfold.planner import Plan, make_plan
from tenfold.planner.explain import duration, render_plan
from tenfold.recipe import recipe_from_dict
from tenfold.shape import shape_from_config


def make(name: str = "one-billion", usd_per_hour: float | None = 2.0, guessed: bool = False) -> Plan:
    machine = next(machine for machine in catalogue() if machine.name == "H200 SXM")
    machine = replace(machine, rent_usd_per_hour=usd_per_hour, efficiency=replace(machine.efficiency, guessed=guessed))
    recipe = recipe_from_dict({"model": "m", "task": "text", "data": {"train": "rows.jsonl"}})
    return make_plan(recipe, shape_from_config(name, CONFIG), ROWS, (machine,), LORA_MEASURED)


def shown(plan: Plan) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(render_plan(plan))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_shows_what_was_chosen_what_it_costs_and_why() -> None:
    text = shown(make())
    for part in ("H200 SXM", "fine_tune, lora", "400 rows", "naive", "from scratch", "checkpoint off", "ways priced"):
        assert part in text


def test_says_what_is_not_known() -> None:
    assert "the speed of H200 SXM is a guess" in shown(make(guessed=True))
    assert "the speed of H200 SXM is a guess" not in shown(make())
    assert "no price; set machine.usd_per_hour" in shown(make(usd_per_hour=None))
    assert "undated" in shown(make())


def test_obeys_nothing_that_a_name_says() -> None:
    plan = make(name="\x1b[31mred\x1b[0m[bold]<script>alert(1)</script>")
    assert "\x1b[31m" not in shown(plan)
    assert "[bold]" in shown(plan)
    assert "<script>" not in plan._repr_html_()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (90, "90 s"), (150, "2.5 min"), (3 * 3600, "3.0 h"), (3 * 86_400, "3.0 days"), (1e9, "31.7 years")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
