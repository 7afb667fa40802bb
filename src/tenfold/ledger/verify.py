"""Signs of tampering: a row that does not match its hash, a gap in the chain, a receipt other than the one billed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tenfold.inert import printable
from tenfold.ledger.row import COLUMNS, NO_ROW, Record, row_sha256


def chain_problems(records: Iterable[Record], highest_seq: int) -> list[str]:
    """What is wrong with rows in order of their numbers, of which `highest_seq` were ever written."""
    problems: list[str] = []
    receipts: dict[str, tuple[str, object]] = {}
    expected_seq, previous = 1, NO_ROW
    for record in records:
        seq, values, stated_previous, sha256 = record[0], record[1:-2], record[-2], record[-1]
        named = f"row {seq} (run {printable(str(values[0]), 40)})"
        if seq != expected_seq:
            problems.append(f"{named}: rows {expected_seq} to {int(str(seq)) - 1} before it are missing")
        elif stated_previous != previous:
            problems.append(f"{named}: does not follow from the row before it")
        if row_sha256(stated_previous, seq, values) != sha256:
            problems.append(f"{named}: was changed after it was written")
        path, receipt_sha256 = values[COLUMNS.index("receipt_path")], values[COLUMNS.index("receipt_sha256")]
        if isinstance(path, str):
            receipts[path] = (named, receipt_sha256)  # a resumed run rewrites its receipt: the newest row counts
        expected_seq, previous = int(str(seq)) + 1, str(sha256)
    if highest_seq != expected_seq - 1:
        problems.append(f"rows {expected_seq} to {highest_seq} at the end are missing")
    for path, (named, sha256) in receipts.items():
        problems += _receipt_problems(path, named, sha256)
    return problems


def _receipt_problems(path: str, named: str, stated_sha256: object) -> list[str]:
    """A receipt that was moved or deleted proves nothing; one that is there must be the one that was billed."""
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [f"{named}: its receipt {printable(path)} cannot be read"]
    return [] if found == stated_sha256 else [f"{named}: its receipt {printable(path)} was changed after it was billed"]
