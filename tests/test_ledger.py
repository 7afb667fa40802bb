"""The ledger under several writers, under an editor's hand, and in a spreadsheet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from receipts import full_receipt
from tenfold.errors import InputError, TenfoldError
from tenfold.ledger import (
    COLUMNS,
    Entry,
    Ledger,
    Row,
    default_ledger_path,
    export_csv,
    export_json,
    open_ledger,
    spent_row,
    store,
    usd_to_micros,
)

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def row(run_id: str, usd_micros: int | None = 33_280, tags: tuple[str, ...] = (), name: str = "tickets") -> Row:
    return Row(
        run_id=run_id,
        kind="spent",
        name=name,
        model="all-MiniLM-L6-v2",
        task="classify",
        machine="local",
        at=AT,
        status="done",
        usd_micros=usd_micros,
        seconds=312.0,
        tokens=1_184_220,
        peak_bytes=1_240_000_000,
        predicted_seconds=290.0,
        quality={"accuracy": 0.912},
        tags=tags,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "share" / "ledger.sqlite"


def filled(path: Path, count: int = 5) -> list[Entry]:
    with Ledger(path) as ledger:
        return [ledger.append(row(f"run-{number}")) for number in range(count)]


def verified(path: Path) -> list[str]:
    with Ledger(path) as ledger:
        return ledger.verify()


def test_what_goes_in_comes_out(path: Path) -> None:
    entries = filled(path)
    with Ledger(path) as ledger:
        assert ledger.rows() == entries
        assert ledger.verify() == []
    assert entries[1].previous_sha256 == entries[0].sha256
    assert path.stat().st_mode & 0o777 == 0o600


def test_tags_and_limits(path: Path) -> None:
    with Ledger(path) as ledger:
        for number in range(6):
            ledger.append(row(f"run-{number}", tags=("team=a",) if number % 2 else ("team=ab", "x")))
        assert [entry.row.run_id for entry in ledger.rows(tag="team=a")] == ["run-1", "run-3", "run-5"]
        assert [entry.row.run_id for entry in ledger.rows(tag="team=a", limit=2)] == ["run-3", "run-5"]
        assert [entry.row.run_id for entry in ledger.rows(limit=2)] == ["run-4", "run-5"]
        assert ledger.rows(limit=0) == []


def _wait_for_any_disk() -> None:
    """Seven that write at once may wait long for each other where a disk is slow or busy."""
    store._BUSY_SECONDS = 600.0


def _append_many(path: Path, writer: int, count: int) -> None:
    _wait_for_any_disk()
    for number in range(count):
        with Ledger(path) as ledger:
            ledger.append(row(f"{writer}-{number}"))


def _append_for_ever(path: Path) -> None:
    _wait_for_any_disk()
    with Ledger(path) as ledger:
        number = 0
        while True:
            ledger.append(row(f"killed-{number}"))
            number += 1


def test_several_processes_at_once_and_one_killed(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    victim = context.Process(target=_append_for_ever, args=(path,))
    writers = [context.Process(target=_append_many, args=(path, writer, 30)) for writer in range(6)]
    for process in (victim, *writers):
        process.start()
    writers[0].join(timeout=600)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    for process in (victim, *writers):
        process.join(timeout=600)
    assert [process.exitcode for process in writers] == [0] * 6
    with Ledger(path) as ledger:
        run_ids = [entry.row.run_id for entry in ledger.rows()]
        assert ledger.verify() == []
    expected = {f"{writer}-{number}" for writer in range(6) for number in range(30)}
    kept = [run_id for run_id in run_ids if not run_id.startswith("killed")]
    assert len(kept) == 180
    assert set(kept) == expected
    killed = [run_id for run_id in run_ids if run_id.startswith("killed")]
    assert killed == [f"killed-{number}" for number in range(len(killed))]


REFUSED = [
    "UPDATE entries SET usd_micros = 1",
    "DELETE FROM entries WHERE seq = 2",
    "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 2",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_rows_are_not_changed_through_sql(path: Path, statement: str) -> None:
    entries = filled(path)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()
    with Ledger(path) as ledger:
        assert ledger.rows() == entries


TAMPERINGS = [
    ("UPDATE entries SET usd_micros = 1 WHERE seq = 3", "row 3 (run run-2): was changed"),
    ("UPDATE entries SET at = '2026-01-01T00:00:00.000000Z' WHERE seq = 1", "row 1 (run run-0): was changed"),
    ("UPDATE entries SET quality = '{\"accuracy\": 0.99}' WHERE seq = 5", "row 5 (run run-4): was changed"),
    ("UPDATE entries SET tokens = '1184220.5' WHERE seq = 2", "row 2 (run run-1): was changed"),
    ("DELETE FROM entries WHERE seq = 3", "row 4 (run run-3): rows 3 to 3 before it are missing"),
    ("DELETE FROM entries WHERE seq > 3", "rows 4 to 5 at the end are missing"),
    ("DELETE FROM entries", "rows 1 to 5 at the end are missing"),
    ("UPDATE entries SET sha256 = 'f' WHERE seq = 2", "row 3 (run run-2): does not follow"),
    ("UPDATE entries SET run_id = CAST(x'ff' AS TEXT) WHERE seq = 2", "row 2"),
]


def tamper(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TEMP TABLE kept AS SELECT name, sql FROM sqlite_master WHERE type = 'trigger';"
        "DROP TRIGGER entries_refuse_update; DROP TRIGGER entries_refuse_delete;"
    )
    connection.execute(statement)
    for (sql,) in connection.execute("SELECT sql FROM kept WHERE name NOT LIKE '%replace'").fetchall():
        connection.execute(sql)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(("statement", "problem"), TAMPERINGS)
def test_an_edited_ledger_shows(path: Path, statement: str, problem: str) -> None:
    filled(path)
    assert verified(path) == []
    tamper(path, statement)
    assert any(found.startswith(problem) for found in verified(path)), verified(path)


@pytest.mark.parametrize("column", [*COLUMNS, "previous_sha256", "sha256"])
def test_every_column_is_in_the_chain_and_the_first_wrong_row_comes_first(path: Path, column: str) -> None:
    filled(path)
    value = "'planned'" if column == "kind" else "7 || seq"
    tamper(path, f"UPDATE entries SET {column} = {value} WHERE seq IN (2, 4)")
    found = verified(path)
    assert found[0].startswith("row 2 "), found
    assert any(problem.startswith(("row 4 ", "row 5 ")) for problem in found), found


@pytest.mark.parametrize("row", [1, 2, 3, 4, 5])
def test_a_removed_row_shows_wherever_it_stood(path: Path, row: int) -> None:
    filled(path)
    tamper(path, f"DELETE FROM entries WHERE seq = {row}")
    (found,) = verified(path)
    assert f"rows {row} to {row}" in found and "missing" in found


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 4), (1, 5)])
def test_rows_in_another_order_show(path: Path, one: int, other: int) -> None:
    filled(path)
    tamper(
        path,
        f"UPDATE entries SET seq = CASE seq WHEN {one} THEN -{other} ELSE -{one} END WHERE seq IN ({one}, {other})",
    )
    assert verified(path)
    tamper(path, "UPDATE entries SET seq = -seq WHERE seq < 0")
    assert any(problem.startswith(f"row {one} ") for problem in verified(path))


def test_a_chain_that_was_computed_anew_from_the_middle_does_not_fit_its_receipts(path: Path, tmp_path: Path) -> None:
    """What the chain cannot show: its owner may write another. The receipts that it names still tell."""
    receipt, where = full_receipt(), tmp_path / "receipt.json"
    with Ledger(path) as ledger:
        ledger.append(spent_row(receipt, where, receipt.write(where)))
    cheaper = path.with_name("cheaper.sqlite")
    edited = receipt.model_copy(update={"bill": receipt.bill.model_copy(update={"usd": 0.0})})
    with Ledger(cheaper) as ledger:
        ledger.append(spent_row(edited, where, hashlib.sha256(edited.to_json().encode()).hexdigest()))
        (found,) = ledger.verify()
    assert "was changed after it was billed" in found


def test_an_edit_that_changes_nothing_does_not_show(path: Path) -> None:
    filled(path)
    tamper(path, "UPDATE entries SET usd_micros = usd_micros")
    assert verified(path) == []


def test_removed_triggers_show(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER entries_refuse_delete")
    connection.close()
    assert verified(path) == ["the trigger entries_refuse_delete was removed"]


def test_one_changed_byte_never_yields_another_bill(path: Path) -> None:
    entries = filled(path)
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x15]) + content[place + 1 :])
        try:
            with Ledger(path) as ledger:
                assert ledger.verify() or ledger.rows() == entries, place
        except TenfoldError as error:
            assert "\n" not in str(error)
        for extra in ("-wal", "-shm"):
            Path(f"{path}{extra}").unlink(missing_ok=True)


def test_a_changed_receipt_shows(path: Path, tmp_path: Path) -> None:
    receipt, receipt_path = full_receipt(), tmp_path / "receipt.json"
    with Ledger(path) as ledger:
        ledger.append(spent_row(receipt, receipt_path, receipt.write(receipt_path)))
        assert ledger.verify() == []
        resumed = receipt.model_copy(update={"resumes": 2})
        ledger.append(spent_row(resumed, receipt_path, resumed.write(receipt_path)))
        assert ledger.verify() == []
        receipt_path.write_text(receipt_path.read_text().replace('"seed": 0', '"seed": 1'))
        assert [problem.split(":")[0] for problem in ledger.verify()] == ["row 2 (run 7f3a91c2)"]
        receipt_path.unlink()
        assert ledger.verify() == []


def test_one_changed_byte_of_a_receipt_shows(path: Path, tmp_path: Path) -> None:
    receipt, where = full_receipt(), tmp_path / "receipt.json"
    with Ledger(path) as ledger:
        ledger.append(spent_row(receipt, where, receipt.write(where)))
        content = where.read_bytes()
        for place in range(0, len(content), 97):
            where.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert len(ledger.verify()) == 1, place
        where.write_bytes(content)
        assert ledger.verify() == []


def test_a_receipt_becomes_a_row(tmp_path: Path) -> None:
    made = spent_row(full_receipt(), tmp_path / "receipt.json", "c" * 64)
    assert (made.usd_micros, made.predicted_usd_micros) == (33_280, 30_933)
    assert (made.seconds, made.tokens, made.peak_bytes) == (312.0, 1_184_220, 1_240_000_000)
    assert made.quality["accuracy"] == 0.912
    assert made.receipt_sha256 == "c" * 64


@pytest.mark.parametrize(
    ("usd", "micros"),
    [(None, None), (0.0, 0), (0.1 + 0.2, 300_000), (1e-7, 0), (1.0000005, 1_000_000), (12345.678901, 12_345_678_901)],
)
def test_money_is_whole_millionths(usd: float | None, micros: int | None) -> None:
    assert usd_to_micros(usd) == micros


def _not_a_database(path: Path) -> None:
    path.write_text("run,usd\n1,2\n" * 500)


def _cut_short(path: Path) -> None:
    filled(path, 40)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE moz_places (url TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_not_a_database, "not a usable ledger.*not a database"),
        (_cut_short, "not a usable ledger|damaged|malformed"),
        (_other_program, "database of another program"),
        (_newer, "version 2; this tenfold reads version 1"),
        (_folder, "not a usable ledger"),
    ],
)
def test_other_files_are_refused_in_one_line(make: object, message: str, path: Path) -> None:
    assert callable(make)
    path.parent.mkdir()
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(InputError, match=message) as caught, Ledger(path) as ledger:
        ledger.rows()
        raise InputError("; ".join(ledger.verify()))
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert len(filled(path)) == 5


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TENFOLD_LEDGER", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert default_ledger_path() == tmp_path / ".local" / "share" / "tenfold" / "ledger.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_ledger_path() == tmp_path / "data" / "tenfold" / "ledger.sqlite"
    monkeypatch.setenv("TENFOLD_LEDGER", "~/mine.sqlite")
    assert default_ledger_path() == tmp_path / "mine.sqlite"
    with open_ledger() as ledger:
        assert ledger.path == tmp_path / "mine.sqlite"


HOSTILE = ["=cmd()", "+1", "-1", "@x", "\t=1", "\x1b[31m=1", 'a,b\n"c"', "\u202e=1"]


def test_csv_is_safe_to_open(path: Path) -> None:
    with Ledger(path) as ledger:
        for text in HOSTILE:
            ledger.append(row(text, tags=(text,), name=text))
        ledger.append(row("free", usd_micros=None))
        stream = io.StringIO()
        export_csv(ledger.rows(), stream)
    heading, *lines = csv.reader(io.StringIO(stream.getvalue()))
    assert {len(line) for line in lines} == {len(heading)}
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert [line[heading.index("usd")] for line in lines[-2:]] == ["0.033280", ""]
    assert lines[0][heading.index("name")] == "'=cmd()"
    assert not {"\x1b", "\u202e"} & set(stream.getvalue())


def test_json_holds_everything(path: Path) -> None:
    entries = filled(path)
    stream = io.StringIO()
    export_json(entries, stream)
    objects = json.loads(stream.getvalue())
    assert [each["usd_micros"] for each in objects] == [33_280] * 5
    assert objects[0]["quality"] == {"accuracy": 0.912}
    assert objects[4]["sha256"] == entries[4].sha256
    assert stream.getvalue().isascii()
