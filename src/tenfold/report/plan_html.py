"""A plan as one HTML file: no script, nothing fetched. What it prints goes through `printable` and is then escaped."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tenfold.durable import write_file
from tenfold.inert import printable
from tenfold.job import KINDS
from tenfold.planner import Plan, RunnerUp
from tenfold.planner.explain import duration, facts, gigabytes, money, usd_text
from tenfold.report.plan_svg import Spot, Stack, memory_svg, trade_svg


def render_plan_html(plan: Plan) -> str:
    """The page's text."""
    here = files("tenfold.report")
    page = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_inert, trim_blocks=True, lstrip_blocks=True
    )
    template = page.from_string(here.joinpath("plan.html.j2").read_text(encoding="utf-8"))
    found = plan.prediction
    return template.render(
        plan=plan,
        style=Markup(here.joinpath("style.css").read_text(encoding="utf-8")),
        facts=facts(plan),
        tiles=(
            ("cost", money(found), f"± {found.error:.0%}"),
            ("time", duration(found.total_seconds), f"training {duration(found.train_seconds)}"),
            ("memory", gigabytes(found.peak_bytes), f"of {gigabytes(plan.machine.memory_bytes)}"),
            ("naive", money(plan.naive), f"{duration(plan.naive.total_seconds)}, predicted"),
        ),
        kinds=list(enumerate(KINDS)),
        memory=memory_svg(_stacks(plan)),
        trade=trade_svg(_spots(plan.runners_up, plan), _spots(plan.front, plan)) if found.usd is not None else "",
        parts=[(name, duration(seconds)) for name, seconds in found.seconds_by_part.items() if seconds >= 0.5],
        ways=(("Runners-up", plan.runners_up), ("Dollars against hours", plan.front)),
        usd_text=usd_text,
        duration=duration,
        gigabytes=gigabytes,
    )


def write_plan_html(plan: Plan, path: Path) -> None:
    """Write the page to `path`."""
    write_file(path, render_plan_html(plan))


def _inert(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


def _stacks(plan: Plan) -> list[Stack]:
    return [
        Stack(
            one.machine,
            one.memory_bytes,
            tuple(one.bytes_by_kind.get(kind, 0.0) for kind in KINDS),
            one.chosen,
        )
        for one in plan.by_machine
    ]


def _spots(ways: tuple[RunnerUp, ...], plan: Plan) -> list[Spot]:
    found = plan.prediction
    return [
        Spot(
            way.total_seconds / 3600,
            way.usd,
            f"{way.machine}: {usd_text(way.usd)}, {duration(way.total_seconds)}",
            chosen=(way.usd, way.total_seconds) == (found.usd, found.total_seconds),
        )
        for way in ways
        if way.usd is not None
    ]
