"""A receipt for a terminal, and the same lines for a pipe.

Every text goes through `Text(printable(...))`: rich's markup is never parsed, and no escape code of a file name reaches
the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tenfold.compare import goal_met, inconsistencies
from tenfold.inert import printable
from tenfold.receipt import Receipt
from tenfold.report.figures import (
    account_lines,
    baseline_lines,
    bill_lines,
    bill_notes,
    comparisons,
    error_text,
    forecasts,
    goal_text,
    hardware_text,
    price_text,
    quality_lines,
    retention_lines,
)
from tenfold.report.units import evidence_text, times_text

_PLAIN_WIDTH = 100

# From here off, a prediction is marked: a plan off by a quarter picks the wrong machine.
_POOR_FORECAST = 0.25


def render_text(receipt: Receipt) -> RenderableType:
    """The receipt as a till would print it: what was bought, what it cost, and what it would have cost."""
    sections = (
        _heading(receipt),
        _facts(receipt),
        _compared(receipt),
        _quality(receipt),
        _retention(receipt),
        _foretold(receipt),
        _itemised(receipt),
        _remarks(receipt),
        _data(receipt),
    )
    return Group(*(Padding(section, (0, 0, 1, 0)) for section in sections if section is not None))


def render(result: Receipt | RenderableType) -> RenderableType:
    """What a terminal shows of a result: a receipt by `render_text`, anything that rich can show as it is."""
    return render_text(result) if isinstance(result, Receipt) else result


def plain_lines(receipt: Receipt) -> tuple[str, ...]:
    """The same without colour or cursor movement, for pipes and logs."""
    stream = StringIO()
    console = Console(file=stream, width=_PLAIN_WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(render_text(receipt))
    return tuple(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _text(content: str, style: str = "") -> Text:
    return Text(printable(content), style=style)


def _heading(receipt: Receipt) -> RenderableType:
    status = receipt.status.replace("_", " ")
    line = Text.assemble(
        ("tenfold receipt  ", "bold"),
        _text(receipt.name, "bold"),
        ("  " + status, "green" if receipt.status == "done" else "yellow"),
    )
    started = receipt.started_at.strftime("%Y-%m-%d %H:%M UTC")
    return Group(line, _text(f"run {receipt.run_id}, {started}", "dim"))


def _facts(receipt: Receipt) -> RenderableType:
    rows = [("model", receipt.model), ("task", receipt.task), ("machine", hardware_text(receipt))]
    rows += [("price", price_text(receipt))]
    for number, cut in enumerate(receipt.cuts):
        kind = "exact" if cut.exact else "approximate"
        rows.append(("cuts" if number == 0 else "", f"{cut.name} ({kind})" + "".join(f"; {f}" for f in cut.facts)))
    return _pairs(rows if receipt.cuts else [*rows, ("cuts", "none")])


def _compared(receipt: Receipt) -> RenderableType | None:
    rows = comparisons(receipt)
    if not rows:
        return None
    table = _table("", "this run\nmeasured")
    for baseline in receipt.baselines:
        table.add_column(Text(f"{baseline.kind}\n{evidence_text(baseline)}"), justify="right")
        table.add_column(Text("\nratio"), justify="right")
    for row in rows:
        cells: list[Text] = [_text(row.label), _text(row.ours_text, "bold")]
        for other in row.others:
            cells += [_text(other.text), _ratio(other.ratio)]
        table.add_row(*cells)
    return Group(table, Text(), _pairs(baseline_lines(receipt))) if receipt.baselines else table


def _quality(receipt: Receipt) -> RenderableType:
    goal = goal_text(receipt, goal_met(receipt))
    asked = [_pairs([("asked for", goal)])] if goal else []
    if not receipt.quality:
        return Group(_pairs([("quality", "not measured")]), *asked)
    table = _table("quality", "", "value", "95 % interval", "rows", "this run minus it")
    for line in quality_lines(receipt):
        cells = (line.metric if line.ours else "", line.whose, line.value, line.interval, line.rows, line.difference)
        table.add_row(*(_text(cell, "bold" if line.ours and cell == line.value else "") for cell in cells))
    return Group(table, *asked)


def _retention(receipt: Receipt) -> RenderableType | None:
    rows = retention_lines(receipt)
    return Group(Text("old domain"), _pairs(rows)) if rows else None


def _ratio(ratio: float | None) -> Text:
    if ratio is None:
        return Text("-", style="dim")
    return Text(times_text(ratio), style="bold green" if ratio >= 1 else "bold red")


def _foretold(receipt: Receipt) -> RenderableType | None:
    rows = [row for row in forecasts(receipt) if row.predicted is not None]
    if not rows:
        return None
    table = _table("", "predicted", "measured", "error")
    for row in rows:
        poor = row.error is not None and abs(row.error) >= _POOR_FORECAST
        error = _text(error_text(row.error), "yellow" if poor else "")
        table.add_row(_text(row.label), _text(row.predicted_text), _text(row.measured_text), error)
    return table


def _itemised(receipt: Receipt) -> RenderableType:
    table = _table("bill", "time", "cost")
    for line in bill_lines(receipt):
        style = "bold" if line.label == "total" else ""
        table.add_row(*(_text(cell, style) for cell in (line.label, line.time, line.cost)))
    for label, amount in bill_notes(receipt):
        table.add_row(_text(label), Text(), _text(amount))
    return table


def _remarks(receipt: Receipt) -> RenderableType | None:
    rows = [("doubt", f"this receipt does not agree with itself: {doubt}") for doubt in inconsistencies(receipt)]
    rows += [("check", f"{found.check}: {found.text}") for found in receipt.checks if found.verdict == "warning"]
    rows += [("resumes", str(receipt.resumes))] if receipt.resumes else []
    rows += [(event.kind.replace("_", " "), event.text) for event in receipt.events]
    return _pairs(rows) if rows else None


def _data(receipt: Receipt) -> RenderableType | None:
    rows = account_lines(receipt)
    return Group(Text("data"), _pairs(rows)) if rows else None


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for label, content in rows:
        grid.add_row(_text(label, "dim"), _text(content))
    return grid


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
