"""Files and dataset ids to rows, each with the file and line it came from."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.account import Rejection, plain, shown
from tenfold.data.lines import Row, check_encoding, json_file, json_lines
from tenfold.data.tables import csv_rows, hub_rows, parquet_rows
from tenfold.errors import InputError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
"""`owner/name` or `name`, with `:split` behind it where the split is not `data.split`."""

FORMATS: dict[str, Callable[[Path, str], Iterator[Row | Rejection]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_file,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}


@dataclass(frozen=True)
class FileSource:
    """A file on disk."""

    path: Path
    name: str
    """How messages call it: the file's name, or its path where two files share a name."""


@dataclass(frozen=True)
class HubSource:
    """A dataset by its Hugging Face id."""

    dataset_id: str
    subset: str | None
    split: str

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.dataset_id}[{self.split}]"


Source = FileSource | HubSource


def locate(wanted: Sequence[str], split: str = "train", subset: str | None = None) -> tuple[Source, ...]:
    """Files and dataset ids behind the names in a recipe; InputError for what is neither."""
    names = [Path(name).name for name in wanted]
    sources: list[Source] = []
    for text, name in zip(wanted, names, strict=True):
        path = _expanded(text)
        if path.suffix.lower() in FORMATS or path.exists() or not HUB_ID.fullmatch(text):
            sources.append(FileSource(_checked(path), text if names.count(name) > 1 else name))
        else:
            dataset_id, _, own_split = text.partition(":")
            sources.append(HubSource(dataset_id, subset, own_split or split))
    if len(set(sources)) < len(sources):
        twice = next(source for source in sources if sources.count(source) > 1)
        raise InputError(f"data names {plain(twice.name)} twice; name each file once")
    return tuple(sources)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return Path(text)


def _checked(path: Path) -> Path:
    shown_path = plain(str(path))
    if path.is_dir():
        raise InputError(f"{shown_path} is a folder; name the files in it")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        raise InputError(f"no file {shown_path}" + (f"; did you mean {plain(near[0])}?" if near else ""))
    if not path.is_file():
        raise InputError(f"{shown_path} is not a regular file")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{shown_path}: unknown format; rows are read from {', '.join(FORMATS)}")
    return path


def read_rows(source: Source, note: Callable[[str], None]) -> Iterator[Row | Rejection]:
    """All rows of a source in order; `note` hears what is no fault but worth saying."""
    if isinstance(source, HubSource):
        yield from hub_rows(source.dataset_id, source.subset, source.split, source.name)
        return
    try:
        if source.path.suffix.lower() != ".parquet" and check_encoding(source.path, source.name):
            note(f"{plain(source.name)} begins with a byte order mark, which was left out")
        yield from FORMATS[source.path.suffix.lower()](source.path, source.name)
    except OSError as error:
        raise InputError(f"{plain(str(source.path))} cannot be read: {error.strerror}") from None


def hash_sources(sources: Sequence[Source]) -> str:
    """SHA-256 over the bytes of all files in their order, as `cat FILES | sha256sum` gives it.

    A dataset id counts with its rows as JSON lines.
    """
    digest = hashlib.sha256()
    for source in sources:
        if isinstance(source, HubSource):
            for row in read_rows(source, lambda _: None):
                values = row.values if isinstance(row, Row) else {}
                digest.update(json.dumps(values, sort_keys=True, default=str).encode() + b"\n")
            continue
        with source.path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def nearest_column(wanted: str, columns: Sequence[str]) -> str | None:
    """The column most likely meant by a name that is not there."""
    lowered = {column.lower().strip(): column for column in columns}
    near = difflib.get_close_matches(wanted.lower(), list(lowered), n=1)
    return lowered[near[0]] if near else None


def missing_column(wanted: str, key: str, columns: Sequence[str]) -> str:
    """What to say when a column is not there: what is, what is nearest, and what to set."""
    near = nearest_column(wanted, columns)
    found = ", ".join(shown(column) for column in columns[:12]) or "none"
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    cure = f"set data.columns.{key}: {plain(near or 'NAME')}"
    return f"no column {shown(wanted)}; found {found}{more}; {cure}"
