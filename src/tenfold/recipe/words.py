"""Plain words for what was found and what a key expects, the latter from the schema itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from tenfold.inert import printable
from tenfold.recipe.schema import Recipe
from tenfold.recipe.yaml_lines import LONGEST_NUMBER

LONGEST_FOUND = 60
"""Characters of a found text that a message shows."""

TEXT = "a text of one line and at most 1024 characters"
"""`schema.Text` in words."""

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """One key of a recipe."""

    field: FieldInfo
    section: type[BaseModel] | None
    """Its model, if it is a section or may hold settings of its own."""


def find_key(path: KeyPath) -> Key | None:
    """The key at `path`, e.g. ("train", "epochs"); None if recipes have none there."""
    model: type[BaseModel] | None = Recipe
    key: Key | None = None
    for name in path:
        if model is None or name not in model.model_fields:
            return None
        field = model.model_fields[name]
        model = _section(field.annotation)
        key = Key(field, model)
    return key


def keys_of(path: KeyPath) -> tuple[str, ...]:
    """The names in the section at `path`; () is the recipe itself."""
    model = Recipe if not path else (key.section if (key := find_key(path)) else None)
    return tuple(model.model_fields) if model else ()


def all_leaves(path: KeyPath = ()) -> list[KeyPath]:
    """Every key that is not a section, and every key that may be one or a word."""
    found: list[KeyPath] = []
    for name in keys_of(path):
        here = (*path, name)
        inner = all_leaves(here)
        key = find_key(here)
        if not inner or (key is not None and _section(key.field.annotation) is not key.field.annotation):
            found.append(here)
        found += inner
    return found


def _section(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (Union, UnionType):
        return next((model for part in get_args(annotation) if (model := _section(part))), None)
    return None


def show(value: object) -> str:
    """A found value and its kind: `'abc' (text)`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"{str(value).lower()} (true or false)"
        case int():
            return f"{value} (number)" if abs(value) < 10**LONGEST_NUMBER else "a number of too many digits"
        case float():
            return f"{value!r} (number)" if math.isfinite(value) else f"{value} (not a finite number)"
        case str():
            text = printable(value, LONGEST_FOUND)
            return (
                f"{text!r} (text)"
                if text == value or len(value) > LONGEST_FOUND
                else f"{text!r} (text with odd characters)"
            )
        case Mapping():
            return "a section"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case _:
            return f"a value of type {printable(type(value).__name__, LONGEST_FOUND)}"


@cache
def expected(path: KeyPath, item: bool = False) -> str:
    """What the key at `path` takes, e.g. `a number greater than 0, e.g. 2e-4`; `item`: inside its list."""
    key = find_key(path)
    if key is None:
        return "another key"
    if key.section is key.field.annotation and key.section is not None:
        return f"a section with keys such as {', '.join(list(key.section.model_fields)[:4])}"
    # FieldInfo is itself metadata for Annotated: bounds and validators travel with it.
    adapter: TypeAdapter[Any] = TypeAdapter(_annotated(key.field))
    schema = adapter.json_schema()
    words = join_or(_alternatives(schema, schema.get("$defs", {}), item))
    examples = [example for example in key.field.examples or () if not item]
    return words + (f", e.g. {_example(examples[0])}" if examples else "")


def _annotated(field: FieldInfo) -> Any:
    return Annotated[field.annotation, field]  # type: ignore[valid-type]


def _example(value: object) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if isinstance(value, float) and value < 0.01 else str(value)


def _alternatives(schema: Mapping[str, Any], definitions: Mapping[str, Any], item: bool) -> list[str]:
    if "$ref" in schema:
        model = definitions[str(schema["$ref"]).rsplit("/", 1)[-1]]
        return [f"its settings ({', '.join(model['properties'])})"]
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if not item or part.get("type") == "array"]
        return [words for part in parts for words in _alternatives(part, definitions, item)]
    if "enum" in schema or "const" in schema:
        return [str(word) for word in schema.get("enum", [schema.get("const")])]
    match schema.get("type"):
        case "array":
            element = join_or(_alternatives(schema["items"], definitions, False))
            return [element if item else f"a list of {'texts' if element == TEXT else f'words, each {element}'}"]
        case "number":
            return [f"a number{_range(schema)}"]
        case "integer":
            return [f"a whole number{_range(schema)}"]
        case "boolean":
            return ["true", "false"]
        case "null":
            return ["null"]
        case _:
            return [TEXT]


def _range(schema: Mapping[str, Any]) -> str:
    low = next((f" {word} {schema[name]:g}" for name, word in LOW.items() if name in schema), "")
    high = next((f" {word} {schema[name]:.15g}" for name, word in HIGH.items() if name in schema), "")
    return f"{low} and{high}" if low and high else low + high


LOW = {"minimum": "of at least", "exclusiveMinimum": "greater than"}
HIGH = {"maximum": "at most", "exclusiveMaximum": "below"}


def join_or(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
