"""Rows of JSON Lines and JSON files, by bytes: a line ends at a newline byte and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tenfold.data.account import Rejection, place, shown
from tenfold.errors import InputError

LINE_CAP_BYTES = 32 * 2**20
"""The longest line read, so that a file without newlines cannot fill the memory. About 8 million tokens of text."""

PIECE_BYTES = 2**20
"""A longer line is read piece by piece: one that turns out to be over the cap is never held twice."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""Byte order marks of the encodings that are refused (The Unicode Standard, section 23.8)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read: its values by column, and where it stands."""

    values: dict[str, object]
    source: str
    line: int
    """1-based line on which the row begins; for tables without lines the 1-based row number."""


class _DuplicateKeyError(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(f"the key {shown(next(k for k in keys if keys.count(k) > 1))} stands twice")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def check_encoding(path: Path, source: str) -> bool:
    """Refuse UTF-16 and UTF-32; True if the file begins with a UTF-8 byte order mark."""
    with path.open("rb") as file:
        head = file.read(256)
    found = next((name for mark, name in OTHER_ENCODINGS.items() if head.startswith(mark)), None)
    if found is None and head.count(0) > len(head) // 4:
        found = "UTF-16 or binary (every other byte is NUL)"
    if found is not None:
        raise InputError(f"{place(source, 1)}: the file is {found}, not UTF-8; save it as UTF-8 (iconv -t UTF-8)")
    return head.startswith(BYTE_ORDER_MARK)


def byte_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """(1-based number, line with its newline), without the byte order mark; None for a line over the cap."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(PIECE_BYTES):
            number += 1
            if not line.endswith(b"\n"):
                line = _whole_line(line, file)
            if number == 1 and line is not None:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line if line is None or len(line) - line.endswith(b"\n") <= LINE_CAP_BYTES else None


def _whole_line(first: bytes, file: BinaryIO) -> bytes | None:
    """A line that begins with `first`; None, and no longer held, as soon as it is over the cap."""
    pieces, length_bytes = [first], len(first)
    while piece := file.readline(PIECE_BYTES):
        length_bytes += len(piece)
        if length_bytes <= LINE_CAP_BYTES + 1:
            pieces.append(piece)
        else:
            pieces.clear()
        if piece.endswith(b"\n"):
            break
    return b"".join(pieces) if length_bytes <= LINE_CAP_BYTES + 1 else None


def json_lines(path: Path, source: str) -> Iterator[Row | Rejection]:
    """Each line that is not blank is one JSON object."""
    for number, line in byte_lines(path):
        if line is None:
            detail = f"the line is longer than {LINE_CAP_BYTES // 2**20} MiB"
            yield Rejection(source, number, "line_too_long", detail)
        elif line.strip():
            yield _parse_line(line, source, number)


def _parse_line(line: bytes, source: str, number: int) -> Row | Rejection:
    try:
        value = DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Rejection(source, number, "not_utf8", not_utf8(line, error))
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else "; the line has no newline, so the file may be cut short"
        return Rejection(source, number, "malformed", f"malformed JSON at column {error.colno}: {error.msg}{cut}")
    except _DuplicateKeyError as error:
        return Rejection(source, number, "duplicate_key", str(error))
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits; brackets nested too deep
        return Rejection(source, number, "malformed", f"malformed JSON: {str(error).splitlines()[0]}")
    return _object_row(value, source, number)


def _object_row(value: object, source: str, number: int) -> Row | Rejection:
    if isinstance(value, dict):
        return Row(value, source, number)  # pyright: ignore[reportUnknownArgumentType]
    hint = "; a JSON array belongs in a file named .json" if isinstance(value, list) else ""
    return Rejection(source, number, "not_an_object", f"the row is {kind(value)}, not an object of columns{hint}")


def not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    """What is wrong with a line that is not UTF-8."""
    if line[error.start : error.start + 1] == b"\xed":
        return f"byte {error.start + 1} begins a lone surrogate, which is not UTF-8"
    return (
        f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8; "
        "if the file is Latin-1, convert it (iconv -f LATIN1 -t UTF-8)"
    )


def kind(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    names: dict[type, str] = {
        bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object",
    }  # fmt: skip
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def json_file(path: Path, source: str) -> Iterator[Row | Rejection]:
    """An array of objects, an object with such an array under "data", or JSON Lines under the name .json."""
    raw = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    if _is_json_lines(raw):
        yield from json_lines(path, source)
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place(source, line)}: {not_utf8(raw, error)}") from None
    try:
        yield from _array_rows(text, source)
    except json.JSONDecodeError as error:
        where = place(source, error.lineno)
        raise InputError(f"{where}: malformed JSON at column {error.colno}: {error.msg}; mend the file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place(source, 1)}: malformed JSON: {str(error).splitlines()[0]}; mend the file") from None


def _is_json_lines(raw: bytes) -> bool:
    """Whether the first line that is not blank is a whole object that does not hold the rows itself."""
    first = raw.lstrip().split(b"\n", 1)[0]
    if not first.startswith(b"{"):
        return False
    try:
        value: object = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return not (isinstance(value, dict) and isinstance(value.get("data"), list))  # pyright: ignore[reportUnknownMemberType]


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _expect(text: str, position: int, wanted: str) -> int:
    """The position after the next character that is not white, which must be `wanted`."""
    position = _skip_space(text, position)
    if text[position : position + 1] != wanted:
        raise json.JSONDecodeError(f"Expecting '{wanted}'", text, position)
    return _skip_space(text, position + 1)


def _array_rows(text: str, source: str) -> Iterator[Row | Rejection]:
    position, whole = _array_start(text, source)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = DECODER.raw_decode(text, position)
        except _DuplicateKeyError as error:
            yield Rejection(source, line, "duplicate_key", str(error))
            _, end = json.JSONDecoder().raw_decode(text, position)
        else:
            yield _object_row(value, source, line)
        position = _skip_space(text, end)
        if text[position : position + 1] != "]":
            position = _expect(text, position, ",")
            if text[position : position + 1] == "]":
                raise json.JSONDecodeError("Expecting value", text, position)
    rest = _skip_space(text, whole or position + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _array_start(text: str, source: str) -> tuple[int, int]:
    """Where the first element of the array of rows begins, and where the object around the array ends (0 if none)."""
    position = _skip_space(text, 0)
    if text[position : position + 1] == "[":
        return _skip_space(text, position + 1), 0
    plain_decoder = json.JSONDecoder()
    value, whole = plain_decoder.raw_decode(text, position) if text[position:] else ({}, 0)
    if not (isinstance(value, dict) and isinstance(value.get("data"), list)):
        keys = ", ".join(shown(key) for key in list(value)[:5]) if isinstance(value, dict) else kind(value)
        raise InputError(
            f"{place(source, 1)}: found one JSON value ({keys or 'nothing'}), not rows; write an array of objects, "
            '{"data": [...]}, or JSON Lines'
        )
    position = _expect(text, position, "{")
    while True:
        key, position = plain_decoder.raw_decode(text, position)
        position = _expect(text, position, ":")
        if key == "data" and text[position] == "[":
            return _skip_space(text, position + 1), whole
        _, position = plain_decoder.raw_decode(text, position)
        position = _expect(text, position, ",")
