"""Rows of CSV files, Parquet files and datasets on the Hugging Face hub."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenfold.data.account import Rejection, place, plain, shown
from tenfold.data.lines import LINE_CAP_BYTES, Row, byte_lines
from tenfold.errors import InputError

UNDECODED = re.compile("[\udc80-\udcff]")
"""What Python's `surrogateescape` makes of bytes that are not UTF-8; UTF-8 itself cannot contain these."""


def csv_rows(path: Path, source: str) -> Iterator[Row | Rejection]:
    """The first row is the header; quoted fields may hold newlines; a row is named by the line it begins on."""
    limit = csv.field_size_limit(LINE_CAP_BYTES)  # the library's own limit is 128 KiB a field
    try:
        reader = csv.reader(_text_lines(path, source), strict=True)
        header = _header(reader, source)
        while header:
            start = reader.line_num + 1
            try:
                fields = next(reader)
            except csv.Error as error:
                if "unexpected end" in str(error) or "field limit" in str(error):
                    cure = "close it, or double the quotes inside the field"
                    raise InputError(f"{place(source, start)}: a quote opened here never closes; {cure}") from None
                yield Rejection(source, start, "malformed", f"malformed CSV: {error}")
                continue
            except StopIteration:
                return
            if fields:
                yield _csv_row(header, fields, source, start)
    finally:
        csv.field_size_limit(limit)


def _text_lines(path: Path, source: str) -> Iterator[str]:
    for number, line in byte_lines(path):
        if line is None:
            raise InputError(
                f"{place(source, number)}: the line is longer than {LINE_CAP_BYTES // 2**20} MiB; split it"
            )
        yield line.decode("utf-8", errors="surrogateescape")


def _header(reader: Iterator[list[str]], source: str) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"{place(source, 1)}: malformed CSV header: {error}") from None
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{place(source, 1)}: the column {shown(twice)} stands twice in the header; rename one")
    return header


def _csv_row(header: list[str], fields: list[str], source: str, line: int) -> Row | Rejection:
    if len(fields) != len(header):
        return Rejection(source, line, "field_count", f"{len(fields)} fields under a header of {len(header)}")
    if any(UNDECODED.search(field) for field in fields):
        detail = "a byte is not UTF-8; if the file is Latin-1, convert it (iconv -f LATIN1 -t UTF-8)"
        return Rejection(source, line, "not_utf8", detail)
    return Row(dict(zip(header, fields, strict=True)), source, line)


def parquet_rows(path: Path, source: str) -> Iterator[Row | Rejection]:
    """Row groups as they come; `line` is the 1-based row number."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{plain(source)}: reading Parquet needs pyarrow; install tenfold[data]") from None
    number = 0
    try:
        file: Any = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, source, number)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{place(source, number + 1)}: unreadable Parquet: {_first_line(error)}") from None


def hub_rows(dataset_id: str, subset: str | None, split: str, source: str) -> Iterator[Row | Rejection]:
    """Rows of a dataset by its id, from the local cache or the hub; class numbers come as their names."""
    try:
        import datasets
    except ImportError:
        raise InputError(f"{shown(dataset_id)} is no file; a dataset id needs tenfold[data] installed") from None
    try:
        dataset: Any = datasets.load_dataset(dataset_id, subset, split=split)
    except Exception as error:  # the library raises its own, requests', fsspec's and builtin errors alike
        raise InputError(
            f"{shown(dataset_id)} is neither a file nor a dataset that can be fetched "
            f"(split {shown(split)}): {_first_line(error)}"
        ) from None
    classes: dict[str, Any] = {
        name: feature for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)
    }
    for number, values in enumerate(dataset, start=1):
        named = {
            # -1 is how the hub marks a hidden label
            name: None if values[name] in (None, -1) else feature.int2str(values[name])
            for name, feature in classes.items()
        }
        yield Row({**values, **named}, source, number)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return plain(lines[0].strip())[:200] if lines else type(error).__name__
