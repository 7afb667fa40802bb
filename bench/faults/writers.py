"""Single writes, small enough for a process each under strace: `python writers.py append|write|naive <folder>`."""

from __future__ import annotations

import sys
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.ledger import open_ledger, spent_row
from tenfold.receipt import Receipt


def prepare(folder: Path, receipt: Path) -> None:
    """A receipt with another one to be written over it, and a ledger of one row."""
    folder.mkdir()
    old = Receipt.read(receipt)
    old.model_copy(update={"name": "new"}).write(folder / "new.json")
    with open_ledger(folder / "ledger.sqlite") as ledger:
        ledger.append(spent_row(old, folder / "receipt.json", old.write(folder / "receipt.json")))


def append(folder: Path) -> None:
    """Add a row to the ledger."""
    with open_ledger(folder / "ledger.sqlite") as ledger:
        ledger.append(spent_row(Receipt.read(folder / "receipt.json"), folder / "receipt.json", "b" * 64))


def write(folder: Path) -> None:
    """Replace the receipt."""
    Receipt.read(folder / "new.json").write(folder / "receipt.json")


def naive(folder: Path) -> None:
    """The control: replace the receipt in place, in two parts."""
    content = (folder / "new.json").read_bytes()
    with (folder / "receipt.json").open("wb", buffering=0) as file:
        file.write(content[:100])
        file.write(content[100:])


def ledger_of(folder: Path) -> str:
    """Whether the row that was being added is there, "old" or "new"; or what is wrong."""
    try:
        with open_ledger(folder / "ledger.sqlite") as ledger:
            problems = [
                line for line in ledger.verify() if "receipt" not in line
            ]  # the row names one that is not there
            rows = len(ledger.rows())
    except TenfoldError as error:
        return str(error)
    return str(problems) if problems else {1: "old", 2: "new", 3: "new"}.get(rows, f"{rows} rows")


def receipt_of(folder: Path) -> str:
    """Which receipt is there, "old" or "new"; or what is wrong."""
    try:
        return "new" if Receipt.read(folder / "receipt.json").name == "new" else "old"
    except TenfoldError as error:
        return str(error)


ACTIONS = {"append": (append, ledger_of), "write": (write, receipt_of), "naive": (naive, receipt_of)}
"""What is done, and how to see what it left."""

if __name__ == "__main__":
    ACTIONS[sys.argv[1]][0](Path(sys.argv[2]))
