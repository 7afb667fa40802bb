"""The ledger on a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from receipts import full_receipt
from tenfold.ledger import Entry, Kind, Row
from tenfold.receipt import Status
from tenfold.report import plain_lines, render, render_ledger

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def entry(run_id: str, kind: Kind, status: Status | None, usd_micros: int | None, name: str = "tickets") -> Entry:
    made = Row(run_id, kind, name, "minilm", "classify", "local", AT, status, usd_micros, 312.0, 1_000, 1)
    return Entry(1, made, "0" * 64, "0" * 64)


def shown(entries: list[Entry]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, color_system=None).print(render_ledger(entries))
    return stream.getvalue()


def test_totals_count_each_run_once_and_planned_ones_never() -> None:
    text = shown(
        [
            entry("a", "planned", None, 900_000_000),
            entry("a", "spent", "preempted", 1_000_000),
            entry("a", "spent", "done", 2_500_000),
            entry("b", "spent", "failed", 500_000),
            entry("c", "spent", "done", None),
        ]
    )
    assert "3 runs, $3.00 spent, $0.50 of it on failed runs, 1 without a price" in text
    assert "2026-11-23 09:30" in text
    assert "preempted" in text


def test_no_rows_is_said() -> None:
    assert shown([]).strip() == "the ledger holds no such rows"


def test_names_are_not_obeyed() -> None:
    text = shown([entry("a", "spent", "done", 1, name="\x1b[31m[bold]x\u202e")])
    assert "[bold]x" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_render_takes_receipts_and_what_rich_shows() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(render(full_receipt()))
    assert [line.rstrip() for line in stream.getvalue().rstrip().splitlines()] == list(plain_lines(full_receipt()))
    assert render("text") == "text"
