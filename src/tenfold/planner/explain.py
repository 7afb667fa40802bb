"""A plan for people: in a terminal and in a notebook."""

from __future__ import annotations

from html import escape

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tenfold.inert import printable
from tenfold.planner.plan import Plan, Prediction


def render_plan(plan: Plan) -> RenderableType:
    """The winner, what it would take, why, and the runners-up."""
    return Group(
        Text(f"Plan for {printable(plan.shape.name)}, {plan.recipe.task}", style="bold"),
        _facts(plan),
        Text(),
        *(Text(f"  {printable(sentence)}") for sentence in plan.why),
        Text(),
        _alternatives(plan),
        Text(_footer(plan), style="dim"),
    )


def _facts(plan: Plan) -> Table:
    found = plan.prediction
    table = Table.grid(padding=(0, 2))
    load = plan.workload
    rows = [
        ("machine", plan.machine.label),
        ("cuts", ", ".join(str(cut["cut"]) for cut in plan.cuts) or "none"),
        ("data", f"{load.rows:,} rows, {load.tokens:,} tokens, longest {load.longest:,}"),
        ("steps", f"{found.steps:,} of {plan.recipe.train.batch_size} rows"),
        ("memory", f"{found.peak_bytes / 1e9:,.2f} GB of {plan.machine.memory_bytes / 1e9:,.1f}"),
        ("time", f"{duration(found.total_seconds)} (± {found.error:.0%}), training {duration(found.train_seconds)}"),
        ("cost", money(found)),
        ("naive", f"{_naive(plan)} (predicted)"),
        ("from scratch", f"{duration(plan.from_scratch.total_seconds)}, {money(plan.from_scratch)} (computed)"),
    ]
    for label, text in rows:
        table.add_row(Text(f"  {label}", style="dim"), Text(printable(text)))
    return table


def _naive(plan: Plan) -> str:
    found = plan.naive
    fits = "" if found.peak_bytes <= plan.machine.memory_bytes else ", more than there is"
    return f"{duration(found.total_seconds)}, {money(found)}, {found.peak_bytes / 1e9:,.2f} GB{fits}"


def _alternatives(plan: Plan) -> RenderableType:
    if not plan.runners_up:
        return Text("  no other way was left to choose from", style="dim")
    table = Table("runner-up", "cuts", "time", "cost", "memory", box=box.SIMPLE, pad_edge=False)
    for way in plan.runners_up:
        cost = "-" if way.usd is None else f"${way.usd:,.4f}"
        cuts = ", ".join(way.cuts) or "none"
        memory = f"{way.peak_bytes / 1e9:,.2f} GB"
        table.add_row(printable(way.machine), cuts, duration(way.total_seconds), cost, memory)
    return table


def _footer(plan: Plan) -> str:
    lost = "; ".join(f"{one.count:,} {one.reason}" for one in plan.rejected)
    price = f"price: {plan.machine.price_source}" if plan.machine.price_source else "no price given"
    if plan.machine.price_date is not None:
        price += f", {plan.machine.price_date}"
    guess = "; speed of this machine is a guess" if plan.machine.guessed else ""
    return f"{plan.considered:,} ways priced{f'; {lost}' if lost else ''}. {price}{guess}."


def money(prediction: Prediction) -> str:
    """Dollars, or a dash without a price."""
    if prediction.usd is None:
        return "- (no price; set machine.usd_per_hour)"
    return f"${prediction.usd:,.{2 if prediction.usd >= 1 else 4}f}"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours, days or years, whichever reads best."""
    for size, unit in ((31_557_600, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def plan_html(plan: Plan) -> str:
    """A compact table for notebooks."""
    found = plan.prediction
    rows = [
        ("model", plan.shape.name),
        ("machine", plan.machine.label),
        ("cuts", ", ".join(str(cut["cut"]) for cut in plan.cuts) or "none"),
        ("memory", f"{found.peak_bytes / 1e9:,.2f} GB"),
        ("time", duration(found.total_seconds)),
        ("cost", money(found)),
    ]
    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(printable(text))}</td></tr>" for label, text in rows)
    return f"<table><caption>tenfold plan</caption>{cells}</table>"
