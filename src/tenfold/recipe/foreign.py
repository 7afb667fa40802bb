"""Recipes from the configuration files of others: Axolotl, TRL, LLaMA-Factory. What they ask for in vain is said.

Unlike in a recipe, a key that is not understood is no mistake here: it is left out, and named with its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenfold.errors import InputError
from tenfold.inert import printable
from tenfold.recipe import aliases
from tenfold.recipe.aliases import WrongValueError
from tenfold.recipe.canonical import Canonical
from tenfold.recipe.llama_factory import LLAMA_FACTORY, data_of
from tenfold.recipe.load import finish, overlaid, read_text
from tenfold.recipe.schema import Recipe
from tenfold.recipe.words import keys_of, show
from tenfold.recipe.yaml_lines import Located, Place, read_yaml

Dialect = Literal["axolotl", "trl", "llama-factory"]
Translated = Iterator[tuple[str, Located]]

ALPACA = {"prompt": "instruction", "completion": "output"}
"""Columns of the alpaca format; its `input` has no place in a recipe."""

TASKS = {"completion": "text", "chat_template": "sft", "alpaca": "sft"}
"""Axolotl's types of datasets that can be read, by their first word, and the task that each means."""


@dataclass(frozen=True)
class Foreign:
    """A recipe, and one line for each setting that has no counterpart in it."""

    recipe: Recipe
    ignored: tuple[str, ...]


def load_foreign(path: Path, dialect: Dialect, overrides: Sequence[str] = ()) -> Foreign:
    """The recipe that another tool's configuration means, changed by `overrides`.

    Raises InputError if the file cannot be read, names no model or no data, or if what it says contradicts itself.
    """
    source = printable(str(path))
    text = read_text(path)
    canonical, ignored = Canonical(), list[str]()
    root = read_yaml(text, Place(source), canonical.problems)
    if root.entries is None:
        raise InputError(f"{source}: found {show(root.value)}, expected the keys and values of a configuration")
    for key, value in _translated(root.entries, dialect, path.absolute().parent, ignored):
        wish = tuple(key.split("."))
        if value.value is True and any(leaf[: len(wish)] == wish != leaf for leaf in canonical.leaves):
            continue  # its settings stand in the file already
        one = Canonical()
        one.read(_nested(key, value))
        if one.problems:
            ignored.append(str(one.problems[0]))
        else:
            canonical.lay_over(one)
    overlaid(canonical, overrides, path.absolute().parent)
    return Foreign(finish(canonical, Place(source), path.stem), tuple(ignored))


def _translated(
    entries: Mapping[str, Located], dialect: Dialect, folder: Path, ignored: list[str]
) -> Iterator[tuple[str, Located]]:
    """Canonical keys and values; what has none goes to `ignored`."""
    own: Mapping[str, Callable[[Located], Translated]] = {}
    if dialect == "axolotl":
        own = {"datasets": _axolotl_datasets, "test_datasets": _axolotl_tests}
    elif dialect == "llama-factory":
        own = LLAMA_FACTORY
        yield from data_of(entries, folder, ignored)
    task_said = False
    for name, value in entries.items():
        try:
            for key, translated in _meaning(name, value, own):
                task_said = task_said or key == "task"
                yield key, translated
        except WrongValueError as error:
            ignored.append(f"{value.place}: {printable(name, 100)}: {error}")
    if not task_said and "task" not in entries:
        text = dialect == "trl" and "dataset_text_field" in entries
        yield "task", Located("text" if text else "sft", next(iter(entries.values())).place)


def _meaning(name: str, value: Located, own: Mapping[str, Callable[[Located], Translated]]) -> Translated:
    if name in own:
        yield from own[name](value)
        return
    if name in keys_of(()):
        yield name, value
        return
    known = aliases.translate(name, value, "")
    if known is None:
        raise WrongValueError("has no counterpart in tenfold; ignored")
    yield from known


def _axolotl_datasets(found: Located) -> Translated:
    """Axolotl's list of `{path, type, ...}`: paths, columns by type, and the task that the types mean."""
    tasks: dict[str, Located] = {}
    for entry in found.items or (found,):
        kind = (entry.entries or {}).get("type")
        word = "chat_template" if kind is None or kind.value is None else str(kind.value)
        task = next((task for name, task in TASKS.items() if word.startswith(name)), None)
        if task is None:
            raise WrongValueError(
                f"found type {show(word)}; tenfold reads chat_template, completion and alpaca, name the columns in"
                " data.columns"
            )
        tasks[task] = entry
        if word.startswith("alpaca"):
            for column, theirs in ALPACA.items():
                yield f"data.columns.{column}", Located(theirs, entry.place)
    if len(tasks) > 1:
        raise WrongValueError("found datasets for plain text and for answers; a recipe has one task")
    yield from (("task", Located(task, entry.place)) for task, entry in tasks.items())
    yield from _paths(found, "datasets")


def _axolotl_tests(found: Located) -> Translated:
    yield from _paths(found, "test_datasets")


def _paths(found: Located, name: str) -> Translated:
    """What the alias makes of the list once the types, which have been read, are gone."""
    entries = [
        Located({key: value for key, value in entry.entries.items() if key != "type"}, entry.place)
        if entry.entries is not None
        else entry
        for entry in found.items or (found,)
    ]
    yield from aliases.translate(name, Located(tuple(entries), found.place), "") or ()


def _nested(key: str, value: Located) -> Located:
    """`train.epochs` as nested mappings; accumulation steps, which no schema has, stand at the top as typed."""
    if key == aliases.ACCUMULATION:
        return Located({"gradient_accumulation_steps": value}, value.place)
    for name in reversed(key.split(".")):
        value = Located({name: value}, value.place)
    return value
