"""Files, texts and mappings to recipes; every problem is reported, each in one line with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tenfold.errors import InputError
from tenfold.inert import printable
from tenfold.recipe.canonical import MOST_PROBLEMS, SHORTHANDS, Canonical, Leaf, named, seen_at
from tenfold.recipe.contradictions import Contradiction
from tenfold.recipe.paths import place_paths
from tenfold.recipe.schema import Recipe
from tenfold.recipe.words import KeyPath, expected, find_key, show
from tenfold.recipe.yaml_lines import DEEPEST, LARGEST_BYTES, Located, Place, Problem, decode, read_yaml
from tenfold.redact import holds_secret

IN_PYTHON = Place("recipe")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by `overrides` such as "train.epochs=2".

    Names of models and data that exist beside the file become absolute paths. Raises InputError with one line per
    problem.
    """
    path = Path(path)
    return _parse(read_text(path), printable(str(path)), overrides, path.absolute().parent, path.stem)


def read_text(path: Path) -> str:
    """The text of a YAML file. Raises InputError if there is none."""
    source = printable(str(path))
    try:
        if not path.is_file():
            raise InputError(f"{source}: {'is not a file' if path.exists() else 'no such file'}; name a recipe (YAML)")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise InputError(f"{source}: cannot be read: {reason}") from None
    return decode(content, source)


def parse_recipe(text: str, source: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML text; `source` is its name in messages. Paths stay as they are. Raises InputError."""
    return _parse(text, printable(source), overrides, None, Path(source).stem)


def recipe_from_dict(settings: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a mapping with a recipe's keys, aliases included. Paths stay as they are. Raises InputError."""
    canonical = Canonical()
    canonical.read(_locate(settings, IN_PYTHON, 0))
    for override in overrides:
        canonical.lay_over(_read_override(override))
    return finish(canonical, IN_PYTHON, "recipe")


def _parse(text: str, source: str, overrides: Sequence[str], folder: Path | None, name: str) -> Recipe:
    canonical = Canonical()
    root = read_yaml(text, Place(source), canonical.problems)
    if root.value is None:
        raise InputError(f"{root.place}: the recipe is empty; write at least model, task and data")
    if root.entries is None:
        raise InputError(f"{root.place}: found {show(root.value)}, expected keys and values, e.g. task: classify")
    canonical.read(root)
    overlaid(canonical, overrides, folder)
    return finish(canonical, Place(source), name)


def overlaid(canonical: Canonical, overrides: Sequence[str], folder: Path | None) -> None:
    """Lay the overrides over what was read, and place what stands beside the file."""
    for override in overrides:
        canonical.lay_over(_read_override(override))
    if folder is not None:
        place_paths(canonical.leaves, folder)


def _read_override(override: str) -> Canonical:
    """`train.epochs=2` as canonical keys."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    place = Place(f"--set {printable(override, 100)}", on_command_line=True)
    if not equals or not all(names) or len(names) > DEEPEST:
        raise InputError(f"{place}: expected key=value, e.g. --set train.epochs=2")
    canonical = Canonical()
    found = read_yaml(text, place, canonical.problems)
    for name in reversed(names):
        found = Located({name: found}, place)
    canonical.read(found)
    return canonical


def _locate(value: object, place: Place, depth: int) -> Located:
    """A Python value as if it had been read."""
    if depth > DEEPEST:
        raise InputError(f"{place}: is nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{place}: found {show(key)} as a key; keys are words")
        return Located({key: _locate(inner, place, depth + 1) for key, inner in value.items()}, place)
    if isinstance(value, list | tuple):
        return Located(tuple(_locate(inner, place, depth + 1) for inner in value), place)
    return Located(str(value) if isinstance(value, Path) else value, place)


def finish(canonical: Canonical, source: Place, name: str) -> Recipe:
    """Check the values against the schema; raise all problems, or return the recipe."""
    if ("output", "folder") not in canonical.leaves:
        safe = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100] or "recipe"
        canonical.leaves["output", "folder"] = Leaf(Located(f"runs/{safe}", source), "output.folder")
    _refuse_secrets(canonical)
    canonical.settle_batches()
    tree = canonical.nested()
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        canonical.problems += _translate(error, canonical, source)
    if recipe is None or canonical.problems:
        raise InputError(_message(canonical.problems))
    return recipe


def _refuse_secrets(canonical: Canonical) -> None:
    """A recipe is stored in plans, receipts and ledgers, and shown to others."""
    for path, leaf in canonical.leaves.items():
        for found in (leaf.found, *(leaf.found.items or ())):
            if isinstance(found.value, str) and holds_secret(found.value):
                what = "holds what looks like a secret, but recipes are kept and shown"
                cure = "put it into an environment variable, e.g. HF_TOKEN"
                canonical.refuse(found.place, f"{named(path, leaf.typed)}: {what}; {cure}")


def _message(problems: Sequence[Problem]) -> str:
    ordered = sorted(problems, key=lambda problem: problem.place.line or 0)
    lines = [str(problem) for problem in ordered[:MOST_PROBLEMS]]
    more = len(problems) - len(lines)
    return "\n".join([*lines, f"and {more} more problems"] if more else lines)


def _translate(error: ValidationError, canonical: Canonical, source: Place) -> list[Problem]:
    """pydantic's findings in plain words, one per key and item."""
    problems: dict[tuple[KeyPath, int | None], Problem] = {}
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] == "contradiction":
            found: Sequence[Contradiction] = detail.get("ctx", {})["found"]
            for one in found:
                keys = [tuple(key.split(".")) for key in one.keys]
                problems[keys[0], None] = _contradiction(one, keys, canonical, source)
            continue
        path, item = _key_of(detail, canonical)
        if any(leaf[: len(path)] == path and leaf != path for leaf in canonical.leaves) and path:
            continue  # "not the word auto" about a cut whose settings are wrong, which is told at the setting
        if (path, item) not in problems:
            problems[path, item] = _wrong_value(path, item, canonical, source)
    # Of a list's own problem and its items' problems, the items' are the better news.
    with_items = {path for path, item in problems if item is not None}
    return [problem for (path, item), problem in problems.items() if item is not None or path not in with_items]


def _key_of(detail: ErrorDetails, canonical: Canonical) -> tuple[KeyPath, int | None]:
    """The key that pydantic's location means, without the names of union members, and the item of a list."""
    path: KeyPath = ()
    for part in detail["loc"]:
        if isinstance(part, str) and find_key((*path, part)) is not None:
            path = (*path, part)
    numbers = [part for part in detail["loc"] if isinstance(part, int)]
    leaf = canonical.leaves.get(path)
    items = leaf.found.items if leaf else None
    return path, numbers[0] if numbers and items is not None and numbers[0] < len(items) else None


def _wrong_value(path: KeyPath, item: int | None, canonical: Canonical, source: Place) -> Problem:
    leaf = canonical.leaves.get(path)
    if leaf is None:
        inside = canonical.sections.get(path[:-1], source) if len(path) > 1 else source
        short = (*path, SHORTHANDS[path]) if path in SHORTHANDS else path
        return Problem(inside, f"{'.'.join(path)}: is missing, expected {expected(short)}")
    found = leaf.found
    name = named(path, leaf.typed)
    if item is not None and found.items is not None:
        found, name = found.items[item], f"{name}[{item}]"
    value = found.value if found.entries is None else found.entries
    return Problem(found.place, f"{name}: found {show(value)}, expected {expected(path, item is not None)}")


def _contradiction(one: Contradiction, keys: Sequence[KeyPath], canonical: Canonical, source: Place) -> Problem:
    """At the first key that the user typed; the others are named with their lines."""
    typed = [(key, canonical.leaves[key]) for key in keys if key in canonical.leaves]
    if not typed:
        place = canonical.sections.get(keys[0], source)
        return Problem(place, f"{one.keys[0]}: {one.text}")
    key, leaf = typed[0]
    also = f" (see {', '.join(seen_at(other) for _, other in typed[1:])})" if typed[1:] else ""
    name = named(key, leaf.typed)
    return Problem(leaf.found.place, f"{name}: {one.text}{also}")
