"""One line of the ledger: its values, how the columns hold them, and the hash that chains it to the line before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from tenfold.receipt import QuantityName, Receipt, Status
from tenfold.redact import redact

Kind = Literal["planned", "started", "spent"]
Stored = str | int | float | None


@dataclass(frozen=True)
class Row:
    """One line of the ledger: a plan made, a run started, or a run's end with what it spent.

    Money in millionths of a US dollar, as integers, so that sums are exact; None where it is not known.
    """

    run_id: str
    kind: Kind
    name: str
    model: str
    task: str
    machine: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: Status | None = None
    usd_micros: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    peak_bytes: int | None = None
    predicted_usd_micros: int | None = None
    predicted_seconds: float | None = None
    predicted_tokens: int | None = None
    predicted_peak_bytes: int | None = None
    quality: dict[str, float] = field(default_factory=dict[str, float])
    tags: tuple[str, ...] = ()
    receipt_path: str | None = None
    receipt_sha256: str | None = None


Record = tuple[Stored, ...]
"""A row as the database hands it out: its number, the columns, the previous hash, its own."""

NO_ROW = "0" * 64
"""The hash before the first row."""

COLUMNS: tuple[str, ...] = tuple(item.name for item in fields(Row))
"""A row's columns, in the order of the exports and of the hash."""


@dataclass(frozen=True)
class Entry:
    """A row as the ledger holds it: its number, its hash, and the hash of the row before."""

    seq: int
    row: Row
    previous_sha256: str
    sha256: str


def usd_to_micros(usd: float | None) -> int | None:
    """Dollars as whole millionths, rounded half to even on the decimal that the float prints as."""
    return None if usd is None else int((Decimal(repr(usd)) * 1_000_000).to_integral_value())


def spent_row(receipt: Receipt, receipt_path: Path, receipt_sha256: str) -> Row:
    """The row that closes a run; `receipt_sha256` is what `Receipt.write` returned."""

    def whole(value: float | None) -> int | None:
        return None if value is None else round(value)

    def foretold(name: QuantityName) -> float | None:
        found = receipt.quantity(name)
        return None if found is None else found.predicted

    return Row(
        run_id=receipt.run_id,
        kind="spent",
        at=receipt.ended_at,
        name=receipt.name,
        model=receipt.model,
        task=receipt.task,
        machine=receipt.hardware.machine,
        status=receipt.status,
        usd_micros=usd_to_micros(receipt.bill.usd),
        seconds=receipt.measured("wall_seconds"),
        tokens=whole(receipt.measured("tokens")),
        peak_bytes=whole(receipt.measured("peak_memory_bytes")),
        predicted_usd_micros=usd_to_micros(foretold("usd")),
        predicted_seconds=foretold("wall_seconds"),
        predicted_tokens=whole(foretold("tokens")),
        predicted_peak_bytes=whole(foretold("peak_memory_bytes")),
        quality={item.metric: item.value for item in receipt.quality},
        tags=receipt.tags,
        receipt_path=str(receipt_path.resolve()),
        receipt_sha256=receipt_sha256,
    )


def stored_values(row: Row) -> Record:
    """The row's values as the columns hold them: times as UTC text, maps and lists as JSON, texts without secrets."""
    values: dict[str, Stored] = {name: getattr(row, name) for name in COLUMNS}
    values["at"] = row.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    values["quality"] = json.dumps(row.quality, sort_keys=True, allow_nan=False)
    values["tags"] = json.dumps(row.tags)
    values["seconds"] = None if row.seconds is None else float(row.seconds)
    values["predicted_seconds"] = None if row.predicted_seconds is None else float(row.predicted_seconds)
    return tuple(redact(value) if isinstance(value, str) else value for value in values.values())


def entry_of(record: Record) -> Entry:
    """The entry that a record of the database stands for; ValueError if its JSON or time was spoilt."""
    seq, previous, sha256 = record[0], record[-2], record[-1]
    values: dict[str, Any] = dict(zip(COLUMNS, record[1:-2], strict=True))
    values["at"] = datetime.fromisoformat(str(values["at"]))
    values["quality"] = json.loads(str(values["quality"]))
    values["tags"] = tuple(json.loads(str(values["tags"])))
    return Entry(int(str(seq)), Row(**values), str(previous), str(sha256))


def row_sha256(previous: Stored, seq: Stored, values: Record) -> str:
    """The hash of a row's values, its number and the hash before it."""
    # `default` serves only a spoilt file, where a column may hold bytes: its hash must differ, not raise.
    text = json.dumps([previous, seq, *values], ensure_ascii=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
