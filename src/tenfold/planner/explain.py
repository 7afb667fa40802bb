"""A plan for people: in a terminal and in a notebook."""

from __future__ import annotations

from html import escape

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tenfold.inert import printable
from tenfold.planner.plan import Plan, Prediction
from tenfold.planner.sizes import VocabularySizes


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
        *vocabulary_lines(plan),
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


def vocabulary_lines(plan: Plan) -> list[tuple[str, str]]:
    """What the new vocabulary saves, if there is one."""
    new = plan.vocabulary
    if new is None:
        return []
    change = new.tokens_after / new.tokens_before - 1
    text = f"{new.new_rows:,} new tokens, {change:+.1%} positions"
    if new.share_on_new_text is not None:
        text += f", {new.share_on_new_text - 1:+.1%} on texts that did not choose them"
    return [("vocabulary", text)]


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


def render_sizes(found: VocabularySizes) -> RenderableType:
    """Vocabularies side by side, and what the choice comes to in a recipe."""
    table = Table("new tokens", "tokens a row", "training rows", "new text", "an epoch", "", "once", box=box.SIMPLE)
    own = found.sizes[0].positions
    for size in found.sizes:
        new_text = "" if size.share_on_new_text is None else f"{size.share_on_new_text - 1:+.1%}"
        cost = "" if size.usd_per_epoch is None else f"${size.usd_per_epoch:,.4f}"
        table.add_row(
            f"{size.new_tokens:,}",
            f"{size.positions / found.rows:,.1f}",
            f"{size.positions / own - 1:+.1%}",
            new_text,
            duration(size.seconds_per_epoch),
            cost,
            duration(size.preparation_seconds),
        )
    first = ", ".join(printable(token) for token in found.tokens[:12])
    return Group(
        table,
        Text(f"  {found.chosen:,} tokens pay, each saves {found.least_saved:,} positions or more: {first}, ..."),
        Text("  what a document is shorter by on new text, it costs less by in use"),
    )


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
