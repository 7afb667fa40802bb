"""The append-only record of every run: planned, started, spent."""

from tenfold.ledger.export import export_csv, export_json
from tenfold.ledger.feedback import Feedback, feedback
from tenfold.ledger.row import COLUMNS, Entry, Kind, Row, spent_row, usd_to_micros
from tenfold.ledger.store import Ledger, default_ledger_path, open_ledger

__all__ = [
    "COLUMNS",
    "Entry",
    "Feedback",
    "Kind",
    "Ledger",
    "Row",
    "default_ledger_path",
    "export_csv",
    "export_json",
    "feedback",
    "open_ledger",
    "spent_row",
    "usd_to_micros",
]
