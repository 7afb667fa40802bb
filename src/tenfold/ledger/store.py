"""Every run in one append-only store: what was planned, what was started, what was spent.

SQLite in WAL mode, on a local disk: WAL needs shared memory between the processes, which network file systems (NFS,
SMB) do not give, so a ledger there may lose rows. Rows are chained: each holds the SHA-256 of its own values and of the
row before it, so that an edited, removed or swapped row shows in `verify`. The chain has no key: it shows tampering by
accident or by hand, and cannot stop an owner of the file from computing a new chain.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tenfold.errors import InputError, TenfoldError
from tenfold.folders import data_folder
from tenfold.inert import printable
from tenfold.ledger.row import COLUMNS, NO_ROW, Entry, Record, Row, entry_of, row_sha256, stored_values
from tenfold.ledger.verify import chain_problems

_APPLICATION_ID = 0x74656E66  # "tenf", in the file header where SQLite keeps a program's own mark
_SCHEMA_VERSION = 1
_BUSY_SECONDS = 30.0  # how long an append waits for other processes; one append takes milliseconds

# SQLite's primary result codes (sqlite.org/rescode.html) that no change of path or file would cure.
_DISK_FAULTS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('planned', 'started', 'spent')), at TEXT NOT NULL,
    name TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL, machine TEXT NOT NULL,
    status TEXT, usd_micros INTEGER, seconds REAL, tokens INTEGER, peak_bytes INTEGER,
    predicted_usd_micros INTEGER, predicted_seconds REAL, predicted_tokens INTEGER, predicted_peak_bytes INTEGER,
    quality TEXT NOT NULL, tags TEXT NOT NULL, receipt_path TEXT, receipt_sha256 TEXT,
    previous_sha256 TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE
);
CREATE TRIGGER entries_refuse_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_refuse_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_refuse_replace BEFORE INSERT ON entries
    WHEN EXISTS (SELECT 1 FROM entries WHERE seq = NEW.seq OR sha256 = NEW.sha256)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
_TRIGGERS = frozenset({"entries_refuse_update", "entries_refuse_delete", "entries_refuse_replace"})


def default_ledger_path() -> Path:
    """TENFOLD_LEDGER, or tenfold/ledger.sqlite in the user's data folder (XDG Base Directory Specification)."""
    stated = os.environ.get("TENFOLD_LEDGER")
    if stated:
        return Path(stated).expanduser()
    return data_folder() / "ledger.sqlite"


class Ledger:
    """An open ledger; use it in a `with` block. Safe with several processes and threads of them at once."""

    def __init__(self, path: Path) -> None:
        """Open `path`, creating it if there is none; InputError if it is something else than a ledger."""
        self.path = path
        with _one_line_errors(path):
            self._connection = _connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; rows already appended are on disk."""
        self._connection.close()

    def append(self, row: Row) -> Entry:
        """Add one row and return it with its place in the chain; it is on disk when this returns."""
        values = stored_values(row)
        with _one_line_errors(self.path), _write_lock(self._connection):
            last = self._connection.execute("SELECT seq, sha256 FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
            seq, previous = (last[0] + 1, last[1]) if last else (1, NO_ROW)
            sha256 = row_sha256(previous, seq, values)
            columns = ", ".join(("seq", *COLUMNS, "previous_sha256", "sha256"))
            places = ", ".join("?" * (len(COLUMNS) + 3))
            statement = f"INSERT INTO entries ({columns}) VALUES ({places})"
            self._connection.execute(statement, (seq, *values, previous, sha256))
        return Entry(seq, row, previous, sha256)

    def rows(self, tag: str | None = None, limit: int | None = None) -> list[Entry]:
        """The newest `limit` rows that bear `tag`, oldest first; all of them by default."""
        found: list[Entry] = []
        with _one_line_errors(self.path):
            for record in self._records("DESC"):
                if limit is not None and len(found) >= limit:
                    break
                entry = entry_of(record)
                if tag is None or tag in entry.row.tags:
                    found.append(entry)
        return found[::-1]

    def verify(self) -> list[str]:
        """Every sign that the ledger, or a receipt it names, was changed after it was written; empty if none."""
        problems: list[str] = []
        with _one_line_errors(self.path):
            faults = [record[0] for record in self._connection.execute("PRAGMA integrity_check(5)")]
            problems += [f"the file is damaged: {printable(str(fault))}" for fault in faults if fault != "ok"]
            present = {record[0] for record in self._connection.execute("SELECT name FROM sqlite_master")}
            problems += [f"the trigger {name} was removed" for name in sorted(_TRIGGERS - present)]
            counted = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
            problems += chain_problems(self._records("ASC"), 0 if counted is None else counted[0])
        return problems

    def _records(self, order: Literal["ASC", "DESC"]) -> Iterator[Record]:
        columns = ", ".join(("seq", *COLUMNS, "previous_sha256", "sha256"))
        return self._connection.execute(f"SELECT {columns} FROM entries ORDER BY seq {order}")


def open_ledger(path: Path | None = None) -> Ledger:
    """The ledger at `path`, or the default one."""
    return Ledger(default_ledger_path() if path is None else path)


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Bills are the owner's business: nobody else reads a ledger unless its owner opens it to them.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = _decode
        exists = _is_ledger(connection, path)  # before WAL: the mode is written into the file, whoever's it is
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if not exists:
            with _write_lock(connection):
                _create(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite refuses at once, without waiting, while another process is switching too."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _is_ledger(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file holds a ledger that this version reads; False for an empty one; InputError for anything else."""
    # The tables first: they and the mark come in one commit, so tables seen without a mark are another program's,
    # even while a second process is creating the ledger between these reads.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    named = printable(str(path))
    if mark == _APPLICATION_ID and version != _SCHEMA_VERSION:
        raise InputError(f"{named}: a ledger of version {version}; this tenfold reads version {_SCHEMA_VERSION}")
    if mark != _APPLICATION_ID and tables:
        raise InputError(f"{named}: a database of another program; name a path for tenfold's own ledger")
    return mark == _APPLICATION_ID


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if _is_ledger(connection, path):
        return  # another process was first
    for statement in _statements(_SCHEMA):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


def _decode(content: bytes) -> str:
    """A spoilt text still reads, so that its row can be named; its hash no longer matches."""
    return content.decode(errors="replace")


def _statements(script: str) -> Iterator[str]:
    """One statement at a time, because executescript would commit the transaction it runs in."""
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _write_lock(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """One writer at a time: read the last hash and append after it as one step."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _one_line_errors(path: Path) -> Generator[None, None, None]:
    named = printable(str(path))
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DISK_FAULTS:
            raise TenfoldError(f"{named}: the ledger cannot be written or read now: {error}") from None
        raise InputError(f"{named}: not a usable ledger ({error}); name another path or restore a copy") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{named}: not a usable ledger ({printable(str(error))})") from None
