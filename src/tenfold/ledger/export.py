"""The ledger for other programs: CSV that no spreadsheet runs, and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import TextIO

from tenfold.inert import csv_cell
from tenfold.ledger.row import COLUMNS, Entry, stored_values

_HASHES = ("previous_sha256", "sha256")
_MONEY = ("usd_micros", "predicted_usd_micros")


def export_csv(entries: Iterable[Entry], stream: TextIO) -> None:
    """One line per row under a heading; money in dollars with six decimals; open `stream` with newline=""."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("seq", *(name.removesuffix("_micros") for name in COLUMNS), *_HASHES))
    for entry in entries:
        values = zip(COLUMNS, stored_values(entry.row), strict=True)
        cells = [_cell(name, value) for name, value in values]
        writer.writerow((entry.seq, *cells, entry.previous_sha256, entry.sha256))


def export_json(entries: Iterable[Entry], stream: TextIO) -> None:
    """An array of objects, ASCII only; money stays in integer millionths of a dollar."""
    objects: list[dict[str, object]] = []
    for entry in entries:
        values: dict[str, object] = dict(zip(COLUMNS, stored_values(entry.row), strict=True))
        values |= {"quality": entry.row.quality, "tags": entry.row.tags}
        chain = {"previous_sha256": entry.previous_sha256, "sha256": entry.sha256}
        objects.append({"seq": entry.seq, **values, **chain})
    json.dump(objects, stream, indent=2)
    stream.write("\n")


def _cell(name: str, value: str | int | float | None) -> str:
    if value is None:
        return ""
    if name in _MONEY and isinstance(value, int):
        return f"{Decimal(value) / 1_000_000:.6f}"
    return csv_cell(value) if isinstance(value, str) else repr(value)
