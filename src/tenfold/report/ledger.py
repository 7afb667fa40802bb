"""The ledger as a table, with what was spent, and what of it bought nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tenfold.inert import printable
from tenfold.ledger import Entry
from tenfold.report.units import count_text, seconds_text, usd_text

_MICROS = 1_000_000


def render_ledger(entries: Sequence[Entry]) -> RenderableType:
    """One line per row, oldest first, and the totals of the rows shown."""
    if not entries:
        return Text("the ledger holds no such rows")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("at (UTC)", "name", "status", "model", "machine"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True)
    for heading in ("time", "tokens", "cost", "planned"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("quality", overflow="fold")
    for entry in entries:
        table.add_row(*(Text(printable(cell)) for cell in _cells(entry)))
    return Group(table, Text(), Text(_totals(entries), style="bold"))


def _cells(entry: Entry) -> tuple[str, ...]:
    row = entry.row
    return (
        row.at.strftime("%Y-%m-%d %H:%M"),
        row.name,
        (row.status or row.kind).replace("_", " "),
        row.model,
        row.machine,
        "" if row.seconds is None else seconds_text(row.seconds),
        "" if row.tokens is None else count_text(row.tokens),
        _usd(row.usd_micros),
        _usd(row.predicted_usd_micros),
        ", ".join(f"{metric} {value:.4g}" for metric, value in row.quality.items()),
    )


def _usd(micros: int | None) -> str:
    return "" if micros is None else usd_text(micros / _MICROS)


def _totals(entries: Sequence[Entry]) -> str:
    """Spent, what of it failed, and how many had no price; the last row of a resumed run stands for all of it."""
    last = {entry.row.run_id: entry.row for entry in entries if entry.row.kind == "spent"}
    spent = sum(row.usd_micros or 0 for row in last.values())
    fruitless = sum(row.usd_micros or 0 for row in last.values() if row.status == "failed")
    unpriced = sum(row.usd_micros is None for row in last.values())
    parts = [f"{len(last)} runs", f"{usd_text(spent / _MICROS)} spent"]
    parts += [f"{usd_text(fruitless / _MICROS)} of it on failed runs"] if fruitless else []
    parts += [f"{unpriced} without a price"] if unpriced else []
    return ", ".join(parts)
