"""YAML as data only, with the line of every value.

PyYAML reads YAML 1.1, in which `no` is false, `12:30` is 750, `0123` is 83 and `1e-5` is a text. Here plain scalars
follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/, 10.3.2) without octal and hexadecimal numbers. Tags,
anchors and aliases, which a recipe has no use for, are refused, and so are duplicate keys.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from tenfold.errors import InputError
from tenfold.inert import printable

LARGEST_BYTES = 1_000_000
DEEPEST = 32
MOST_VALUES = 10_000
"""A recipe has some hundred keys; the caps keep a hostile one from costing more than a second."""
LONGEST_NUMBER = 40
"""Characters; Python refuses integers of thousands of digits, and no setting needs forty."""

NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@dataclass(frozen=True)
class Place:
    """Where something was said: a file and line, or a `--set` option."""

    source: str
    line: int | None = None
    on_command_line: bool = False

    def at(self, line: int) -> Place:
        """The place at a line of this source; the command line has none."""
        return self if self.on_command_line else Place(self.source, line)

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Located:
    """A value and its place; a mapping's entries stand at the lines of their keys."""

    value: object
    """A scalar, a tuple of Located, or a dict of text to Located."""
    place: Place

    @property
    def entries(self) -> Mapping[str, Located] | None:
        """What a mapping holds; None for other values."""
        return self.value if isinstance(self.value, dict) else None

    @property
    def items(self) -> tuple[Located, ...] | None:
        """What a list holds; None for other values."""
        return self.value if isinstance(self.value, tuple) else None


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe, as one line."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def decode(content: bytes, source: str) -> str:
    """The text of a recipe's bytes: UTF-8, with or without a byte order mark. Raises InputError."""
    if len(content) > LARGEST_BYTES:
        raise InputError(f"{source}: is larger than {LARGEST_BYTES:,} bytes; a recipe holds settings, not data")
    for mark, name in ENCODINGS:
        if content.startswith(mark):
            raise InputError(f"{source}:1: is encoded as {name}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content[error.start]
        raise InputError(
            f"{source}:{line}: found byte 0x{found:02x}, which is not UTF-8; save the file as UTF-8"
        ) from None
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise InputError(f"{source}:{line}: found a null character, perhaps from UTF-16; save the file as UTF-8")
    return text


def read_yaml(text: str, source: Place, problems: list[Problem]) -> Located:
    """The one document in `text`; an empty one is None.

    Duplicate and non-text keys are added to `problems`. Raises InputError where reading cannot go on.
    """
    if len(text) > LARGEST_BYTES:
        raise InputError(f"{source}: is larger than {LARGEST_BYTES:,} characters; a recipe holds settings, not data")
    try:
        # A subclass of yaml.SafeLoader that builds no objects: `read` gives the document's nodes.
        root = _Loader(text.removeprefix("\ufeff")).read()
    except _RefusedError as error:
        raise InputError(f"{source.at(error.line)}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{source.at(mark.line + 1) if mark else source}: {_syntax(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{source.at(line)}: found a control character; remove it") from None
    if root is None:
        return Located(None, source.at(1))
    return _located(root, source.at(root.start_mark.line + 1), problems)


class _RefusedError(Exception):
    """YAML that is well formed, but no recipe."""

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text)
        self.line = line


class _Loader(yaml.SafeLoader):
    """The scanner, parser and composer of PyYAML, with limits and without tags, anchors and aliases."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def read(self) -> yaml.Node | None:
        try:
            return self.get_single_node()
        finally:
            self.dispose()

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:  # type: ignore[override]
        event = self.peek_event()
        line = event.start_mark.line + 1
        self._values += 1
        self._depth += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            name = printable(f"{mark}{event.anchor}", 40)
            raise _RefusedError(
                f"found {name}; anchors and aliases are not read, quote a text or write the value out", line
            )
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(
                f"found the tag {printable(event.tag, 60)}; tags are not read, quote it if it is a text", line
            )
        if self._depth > DEEPEST:
            raise _RefusedError(f"is nested more than {DEEPEST} levels deep", line)
        if self._values > MOST_VALUES:
            raise _RefusedError(f"holds more than {MOST_VALUES:,} values", line)
        node = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        return node


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "'\\t'" in problem:
        return "found a tab; indent with spaces"
    if "expected a single document" in (error.context or ""):
        return "found a second document; a recipe is one, remove '---'"
    return f"is not YAML: {printable(' '.join(filter(None, (error.context, problem))), 150)}"


def _located(node: yaml.Node, place: Place, problems: list[Problem]) -> Located:
    if isinstance(node, yaml.ScalarNode):
        return Located(node.value if node.style is not None else plain_scalar(node.value), place)
    if isinstance(node, yaml.SequenceNode):
        children = [_located(child, place.at(child.start_mark.line + 1), problems) for child in node.value]
        return Located(tuple(children), place)
    entries: dict[str, Located] = {}
    for key, child in node.value:
        here = place.at(key.start_mark.line + 1)
        value = _located(child, here, problems)
        if not isinstance(key, yaml.ScalarNode) or (key.style is None and not isinstance(plain_scalar(key.value), str)):
            name = printable(key.value, 40) if isinstance(key, yaml.ScalarNode) else "a list or section"
            problems.append(Problem(here, f"found {name or 'nothing'} as a key; keys are words"))
        elif key.value in entries:
            first = entries[key.value].place.line
            problems.append(Problem(here, f"{printable(key.value, 60)}: stands here and on line {first}; keep one"))
        else:
            entries[key.value] = value
    return Located(entries, place)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes means."""
    if text in WORDS:
        return WORDS[text]
    if len(text) > LONGEST_NUMBER or not NUMBER.fullmatch(text):
        return text
    return int(text) if WHOLE.fullmatch(text) else float(text)
