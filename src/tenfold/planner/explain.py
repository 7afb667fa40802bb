"""A plan for people: in a terminal and in a notebook."""

from __future__ import annotations

from html import escape

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tenfold.inert import printable
from tenfold.planner.plan import Plan, Prediction, RunnerUp
from tenfold.planner.sizes import VocabularySizes


def render_plan(plan: Plan) -> RenderableType:
    """The winner, what it would take, why, the runners-up, and what to doubt."""
    notes = [Text(f"  note: {printable(note)}", style="yellow") for note in plan.notes]
    return Group(
        Text(f"Plan for {printable(plan.shape.name)}, {plan.recipe.task}", style="bold"),
        _facts(plan),
        Text(),
        *(Text(f"  {printable(sentence)}") for sentence in plan.why),
        *(Text(f"  {printable(sentence)}") for sentence in plan.buys),
        Text(),
        _alternatives("runner-up", plan.runners_up),
        *([_alternatives("dollars against hours", plan.front)] if len(plan.front) > 1 else []),
        *notes,
        Text(_footer(plan), style="dim"),
    )


def facts(plan: Plan) -> list[tuple[str, str]]:
    """What a plan says in short, label and text."""
    found, load = plan.prediction, plan.workload
    rows = [
        ("machine", plan.machine.label),
        ("cuts", ", ".join(str(cut["cut"]) for cut in plan.cuts) or "none"),
        ("data", f"{load.rows:,} rows, {load.tokens:,} tokens, longest {load.longest:,}"),
        *vocabulary_lines(plan),
        ("steps", f"{found.steps:,} of {plan.recipe.train.batch_size} rows"),
        ("memory", f"{gigabytes(found.peak_bytes)} of {gigabytes(plan.machine.memory_bytes)}, at the {peak_at(found)}"),
        (
            "time",
            f"{duration(found.total_seconds)} (± {found.error:.0%}), training {duration(found.train_seconds)}"
            f"{_beside_training(found)}",
        ),
        ("cost", money(found)),
    ]
    if found.kwh is not None and found.grams_co2e is not None:
        rows.append(("energy", f"{found.kwh:,.3g} kWh, {found.grams_co2e / 1000:,.3g} kg CO2e"))
    if plan.save_every_steps is not None:
        rows.append(("saved", f"a state every {plan.save_every_steps:,} steps"))
    return [
        *rows,
        ("naive", f"{_naive(plan)} (predicted)"),
        ("from scratch", f"{duration(plan.from_scratch.total_seconds)}, {money(plan.from_scratch)} (computed)"),
    ]


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


def _facts(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, text in facts(plan):
        table.add_row(Text(f"  {label}", style="dim"), Text(printable(text)))
    return table


def _beside_training(found: Prediction) -> str:
    """The largest parts that are billed beside training."""
    others = {name: seconds for name, seconds in found.seconds_by_part.items() if name not in ("train", "compile")}
    largest = sorted((name for name in others if others[name] >= 1), key=lambda name: -others[name])[:3]
    return "".join(f", {name} {duration(others[name])}" for name in largest)


def peak_at(found: Prediction) -> str:
    """The moment of the peak in words."""
    blocks = {
        "kept block": "last block's backward pass",
        "repeated block": "backward pass of a repeated block",
        "load": "change of the dense model before the first step",
    }
    return blocks.get(found.peak_moment, found.peak_moment)


def _naive(plan: Plan) -> str:
    found = plan.naive
    fits = "" if found.peak_bytes <= plan.machine.memory_bytes else ", more than there is"
    return f"{duration(found.total_seconds)}, {money(found)}, {gigabytes(found.peak_bytes)}{fits}"


def _alternatives(title: str, ways: tuple[RunnerUp, ...]) -> RenderableType:
    if not ways:
        return Text("  no other way was left to choose from", style="dim")
    table = Table(title, "cuts", "time", "cost", "memory", box=box.SIMPLE, pad_edge=False)
    for way in ways:
        cost = "-" if way.usd is None else usd_text(way.usd)
        cuts = ", ".join(way.cuts) or "none"
        guess = " (guess)" if way.guessed else ""
        table.add_row(
            printable(way.machine), cuts, duration(way.total_seconds) + guess, cost, gigabytes(way.peak_bytes)
        )
    return table


def _footer(plan: Plan) -> str:
    lost = "; ".join(f"{one.count:,} {one.reason}" for one in plan.rejected)
    price = f"price: {plan.machine.price_source}" if plan.machine.price_source else "no price given"
    if plan.machine.price_date is not None:
        price += f", {plan.machine.price_date}"
    elif plan.machine.price_doubt:
        price += f", {plan.machine.price_doubt}"
    return f"{plan.considered:,} ways priced{f'; {lost}' if lost else ''}. {price}."


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
    return usd_text(prediction.usd)


def usd_text(usd: float) -> str:
    """Dollars with cents, or more digits of less than one."""
    return f"${usd:,.{2 if usd >= 1 else 4}f}"


def gigabytes(count: float) -> str:
    """Bytes as GB."""
    return f"{count / 1e9:,.2f} GB"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours, days or years, whichever reads best."""
    for size, unit in ((31_557_600, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def plan_html(plan: Plan) -> str:
    """A compact table for notebooks."""
    rows = [("model", plan.shape.name), *facts(plan)[:8], *(("note", note) for note in plan.notes)]
    cells = "".join(f"<tr><th>{escape(label)}</th><td>{escape(printable(text))}</td></tr>" for label, text in rows)
    return f"<table><caption>tenfold plan</caption>{cells}</table>"
