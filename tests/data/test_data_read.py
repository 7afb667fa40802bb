"""Every format gives the same rows, each with the line it begins on."""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from data_recipes import byte_tokenizer, lines, load, make_recipe, write
from tenfold.data import Rejection, Row, load_dataset
from tenfold.data.lines import LINE_CAP_BYTES
from tenfold.data.read import FileSource, HubSource, hash_sources, locate, nearest_column, read_rows
from tenfold.errors import InputError

TWO = [{"text": "one", "label": "a"}, {"text": "two\u2028\u0085half\u000bx", "label": "b"}]
ARRAY = json.dumps(TWO)

FORMATS: dict[str, tuple[str, bytes, list[int]]] = {
    "jsonl": ("x.jsonl", lines(*TWO).encode(), [1, 2]),
    "jsonl, characters written out": (
        "x.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in TWO).encode(), [1, 2],
    ),
    "jsonl, CRLF, blank lines, no last newline": (
        "x.jsonl", lines(TWO[0], "", "  ", TWO[1]).replace("\n", "\r\n").rstrip().encode(), [1, 4],
    ),
    "jsonl with a byte order mark": ("x.jsonl", b"\xef\xbb\xbf" + lines(*TWO).encode(), [1, 2]),
    "ndjson": ("x.ndjson", lines(*TWO).encode(), [1, 2]),
    "suffix in capitals": ("X.JSONL", lines(*TWO).encode(), [1, 2]),
    "json array": ("x.json", ARRAY.encode(), [1, 1]),
    "json array, indented": ("x.json", json.dumps(TWO, indent=1).encode(), [2, 6]),
    "json array with a byte order mark": ("x.json", b"\xef\xbb\xbf" + ARRAY.encode(), [1, 1]),
    "json under data": ("x.json", f'{{"version": [1, {{"data": 0}}],\n"data":\n[{ARRAY[1:-1]}\n]}}'.encode(), [3, 3]),
    "json lines named .json": ("x.json", lines(*TWO).encode(), [1, 2]),
    "csv": ("x.csv", "text,label\none,a\n\"two\u2028\u0085half\u000bx\",b\n".encode(), [2, 3]),
    "csv with a byte order mark, CRLF": (
        "x.csv", b"\xef\xbb\xbf" + "text,label\r\none,a\r\ntwo\u2028\u0085half\u000bx,b".encode(), [2, 3],
    ),
}  # fmt: skip


def rows_of(path: Path) -> list[Row | Rejection]:
    return list(read_rows(FileSource(path, path.name), lambda _: None))


@pytest.mark.parametrize("case", FORMATS, ids=str)
def test_formats(case: str, tmp_path: Path) -> None:
    name, content, numbers = FORMATS[case]
    path = write(tmp_path / name, content)
    assert rows_of(path) == [Row(row, name, number) for row, number in zip(TWO, numbers, strict=True)]


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(TWO), path)
    assert rows_of(path) == [Row(row, "x.parquet", number) for number, row in enumerate(TWO, start=1)]
    write(path, b"PAR1 but no more")
    with pytest.raises(InputError, match=r"^x\.parquet:1: unreadable Parquet"):
        rows_of(path)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"install tenfold\[data\]"):
        rows_of(write(tmp_path / "x.parquet", b"PAR1"))


def test_csv_fields_keep_their_newlines_and_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'text,label\n"a\r\nb\n""c""",x\n\nlast,y\n')
    assert rows_of(path) == [
        Row({"text": 'a\r\nb\n"c"', "label": "x"}, "x.csv", 2),
        Row({"text": "last", "label": "y"}, "x.csv", 6),
    ]


def test_csv_long_fields_pass_and_the_library_limit_is_restored(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    (row,) = rows_of(write(tmp_path / "x.csv", f"text,label\n{'x' * 300_000},a\n"))
    assert isinstance(row, Row) and len(str(row.values["text"])) == 300_000
    assert csv.field_size_limit() == before


def test_a_line_over_the_cap_is_skipped_without_holding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.data.lines.LINE_CAP_BYTES", 64)
    path = write(tmp_path / "x.jsonl", lines(TWO[0], "x" * 1000, TWO[0]))
    first, long, last = rows_of(path)
    assert isinstance(long, Rejection) and (long.where, long.reason) == ("x.jsonl:2", "line_too_long")
    assert isinstance(first, Row) and isinstance(last, Row) and last.line == 3
    exact = write(tmp_path / "y.jsonl", '{"text": "' + "x" * (64 - 12) + '"}\n')  # 64 bytes and the newline
    assert isinstance(rows_of(exact)[0], Row)
    with pytest.raises(InputError, match=r"^x\.csv:2: the line is longer"):
        rows_of(write(tmp_path / "x.csv", "text,label\n" + "x" * 1000 + ",a\n"))


HUB_ERRORS = [ConnectionError("no route\nto host"), ValueError("Unknown split"), FileNotFoundError("no such dataset")]


class Names:
    """Stands in for datasets.ClassLabel."""

    def int2str(self, number: int) -> str:
        return ["bad", "good"][number]


def fake_datasets(asked: list[object], error: Exception | None = None) -> ModuleType:
    module = ModuleType("datasets")

    class Rows(list[dict[str, object]]):
        features: ClassVar = {"text": object(), "label": Names()}

    def load_dataset(name: str, subset: str | None, split: str) -> Rows:
        asked.append((name, subset, split))
        if error is not None:
            raise error
        return Rows([{"text": "fine", "label": 1}, {"text": "awful", "label": 0}, {"text": "?", "label": -1}])

    module.__dict__.update(load_dataset=load_dataset, ClassLabel=Names)
    return module


def test_dataset_ids_name_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(asked))
    first, second = locate(["owner/name", "owner/name:test"], "train", "en")
    assert [row.values for row in read_rows(first, lambda _: None) if isinstance(row, Row)] == [
        {"text": "fine", "label": "good"}, {"text": "awful", "label": "bad"}, {"text": "?", "label": None},
    ]  # fmt: skip
    list(read_rows(second, lambda _: None))
    assert asked == [("owner/name", "en", "train"), ("owner/name", "en", "test")]
    assert len(hash_sources([first])) == 64
    dataset = load_dataset(make_recipe("classify", "owner/name", bad_rows="drop"), byte_tokenizer(), 512)
    assert dataset.labels == ("bad", "good") and dataset.account.rejections["null"].where == ("owner/name[train]:3",)


@pytest.mark.parametrize("error", HUB_ERRORS, ids=lambda error: type(error).__name__)
def test_dataset_ids_that_cannot_be_fetched(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([], error))
    with pytest.raises(InputError) as caught:
        list(read_rows(HubSource("owner/name", None, "train"), lambda _: None))
    assert "'owner/name' is neither a file nor a dataset" in str(caught.value) and "\n" not in str(caught.value)


def test_dataset_ids_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"tenfold\[data\]"):
        list(read_rows(HubSource("owner/name", None, "train"), lambda _: None))


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", lines(*TWO))
    write(tmp_path / "train.txt", "text")
    for name, message in {
        str(tmp_path / "trian.jsonl"): "did you mean train.jsonl",
        str(tmp_path): "is a folder",
        str(tmp_path / "train.txt"): "unknown format; rows are read from .jsonl, .ndjson, .json, .csv, .parquet",
        "/dev/null": "not a regular file",
        "data/none.jsonl": "no file data/none.jsonl",
        "two words": "no file two words",
        "evil\nname.jsonl": r"no file evil\nname.jsonl",
    }.items():
        with pytest.raises(InputError) as caught:
            locate([name])
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "x.jsonl" for folder in ("de", "en")]
    for path in paths:
        path.parent.mkdir()
        write(path, lines(*TWO))
    assert [source.name for source in locate([str(path) for path in paths])] == [str(path) for path in paths]
    assert [source.name for source in locate([str(paths[0])])] == ["x.jsonl"]
    with pytest.raises(InputError, match="twice"):
        locate([str(paths[0])] * 2)


def test_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", lines(*TWO)), write(tmp_path / "b.jsonl", lines(TWO[0]))
    dataset = load("classify", train, eval=[str(held)])
    assert dataset.sha256 == hashlib.sha256(train.read_bytes() + held.read_bytes()).hexdigest()
    changed = write(held, lines(TWO[1]))
    assert load("classify", train, eval=[str(changed)]).sha256 != dataset.sha256


def test_nearest_column() -> None:
    assert nearest_column("text", ["Text", "id"]) == "Text"
    assert nearest_column("label", ["labels", "id"]) == "labels"
    assert nearest_column("prompt", ["question"]) is None


@pytest.mark.parametrize("lines", [1, 20_000], ids=["one line of 10 MB", "20,000 short lines"])
def test_reading_holds_one_line_and_not_the_file(lines: int, tmp_path: Path) -> None:
    row = b'{"text": "' + b"x" * (10_000_000 // lines) + b'"}\n'
    path = write(tmp_path / "x.jsonl", row * lines)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(locate([str(path)])[0], lambda _: None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == lines
    assert peak < 5 * len(row) + 1_000_000


def test_a_file_without_a_newline_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.truncate(8 * LINE_CAP_BYTES)  # holes: nothing is written to disk
        file.seek(0)
        file.write(b'{"text": "' + b"x" * 300)
    tracemalloc.start()
    try:
        (found,) = read_rows(locate([str(path)])[0], lambda _: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, Rejection) and found.reason == "line_too_long"
    assert peak < 2 * LINE_CAP_BYTES
