"""From what was typed to canonical keys: sections opened, aliases translated, overrides laid over, doublets found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tenfold.inert import printable
from tenfold.recipe import aliases
from tenfold.recipe.aliases import ACCUMULATION, WrongValueError
from tenfold.recipe.words import KeyPath, all_leaves, expected, find_key, join_or, keys_of, show
from tenfold.recipe.yaml_lines import Located, Place, Problem

MOST_PROBLEMS = 50
"""Lines of one message; who has more problems than that is not helped by more lines, nor by more suggestions."""

SHORTHANDS: dict[KeyPath, str] = {("model",): "name", ("data",): "train", ("machine",): "name"}
"""Sections that may be written as the one value that matters most."""

RIVALS: dict[KeyPath, tuple[KeyPath, ...]] = {
    ("train", "max_steps"): (("train", "epochs"),),
    ("train", "epochs"): (("train", "max_steps"),),
    ("train", "batch_size"): (("train", "gradient_accumulation_steps"),),
    ("data", "eval"): (("data", "eval_fraction"),),
    ("data", "eval_fraction"): (("data", "eval"),),
}
"""Keys that give way when an override sets the other: `--set train.max_steps=10` is for recipes that count epochs."""

_ACCUMULATION = tuple(ACCUMULATION.split("."))
_BATCH, _MICRO = ("train", "batch_size"), ("train", "micro_batch_size")


@dataclass(frozen=True)
class Leaf:
    """A value with a canonical key, and how its key was typed."""

    found: Located
    typed: str


@dataclass
class Canonical:
    """A recipe as canonical keys and values, while it is being read."""

    leaves: dict[KeyPath, Leaf] = field(default_factory=dict[KeyPath, Leaf])
    sections: dict[KeyPath, Place] = field(default_factory=dict[KeyPath, Place])
    problems: list[Problem] = field(default_factory=list[Problem])

    def refuse(self, place: Place, text: str) -> None:
        """Note one more problem."""
        self.problems.append(Problem(place, text))

    def read(self, found: Located, section: KeyPath = (), typed: str = "") -> None:
        """Take in a mapping that stands in `section`."""
        self.sections[section] = found.place
        for name, value in (found.entries or {}).items():
            here = f"{typed}.{name}" if typed else name
            if name in keys_of(section):
                self._put((*section, name), value, here)
                continue
            try:
                meaning = aliases.translate(name, value, ".".join(section))
                if meaning is None:
                    advice = f"; {_suggest(name, section)}" if len(self.problems) < MOST_PROBLEMS else ""
                    self.refuse(value.place, f"{printable(here, 100)}: unknown key{advice}")
                for key, translated in meaning or ():
                    self._put(tuple(key.split(".")), translated, here)
            except WrongValueError as error:
                self.refuse(value.place, f"{here}: {error}")

    def _put(self, path: KeyPath, found: Located, typed: str) -> None:
        key = find_key(path)
        section = key.section if key else None
        may_be_word = key is not None and section is not key.field.annotation
        if section is not None and found.entries:
            self.read(found, path, typed)
        elif section is not None and not may_be_word and _is_blank(found):
            self.sections[path] = found.place  # a section whose keys are all commented out
        elif path == ("cuts",) and found.value == "auto":
            self.sections[path] = found.place
        elif path in SHORTHANDS and found.entries is None:
            self._put((*path, SHORTHANDS[path]), found, typed)
        elif path in self.leaves:
            first = self.leaves[path]
            self.refuse(found.place, f"{named(path, typed)}: is also set by {seen_at(first)}; keep one")
        elif not (found.value is None and typed != ".".join(path) and not _takes_null(path)):
            self.leaves[path] = Leaf(found, typed)  # a blank alias, as in Axolotl's examples, is as good as none

    def lay_over(self, over: Canonical) -> None:
        """Let the keys of an override replace those here, along with what they make meaningless."""
        for path, leaf in over.leaves.items():
            rivals = RIVALS.get(path, ()) if leaf.found.value is not None else ()
            for old in list(self.leaves):
                if old[: len(path)] == path or path[: len(old)] == old or old in rivals:
                    del self.leaves[old]
            self.leaves[path] = leaf
        self.problems += over.problems

    def settle_batches(self) -> None:
        """Turn accumulation steps into rows per optimizer step.

        As in TrainingArguments and Axolotl, a micro-batch under their names without accumulation is the whole batch.
        """
        steps, micro, batch = self.leaves.pop(_ACCUMULATION, None), self.leaves.get(_MICRO), self.leaves.get(_BATCH)
        if steps is None:
            if (
                micro is not None
                and batch is None
                and micro.typed != ".".join(_MICRO)
                and micro.found.value is not None
            ):
                self.leaves[_BATCH] = micro
            return
        count = _whole(steps.found)
        if count is None:
            expects = "expected a whole number of at least 1"
            self.refuse(steps.found.place, f"{steps.typed}: found {show(steps.found.value)}, {expects}")
            return
        numbers = [_whole(leaf.found) if leaf else None for leaf in (micro, batch)]
        if micro is None and batch is None:
            self.refuse(
                steps.found.place, f"{steps.typed}: needs micro_batch_size beside it, or write train.batch_size"
            )
        elif micro is None and batch is not None and numbers[1] is not None and numbers[1] % count == 0:
            self.leaves[_MICRO] = Leaf(Located(numbers[1] // count, steps.found.place), steps.typed)
        elif batch is None and micro is not None and numbers[0] is not None:
            self.leaves[_BATCH] = Leaf(Located(numbers[0] * count, steps.found.place), steps.typed)
        elif micro is None or (None not in numbers and numbers[0] * count != numbers[1]):  # type: ignore[operator]
            product = f"{numbers[0]} rows x {count}" if micro else f"a multiple of {count}"
            where = seen_at(batch) if batch else ""
            text = f"train.batch_size is {product} steps, but {where} says {numbers[1]}; keep one"
            self.refuse(steps.found.place, f"{steps.typed}: {text}")

    def nested(self) -> dict[str, Any]:
        """The values as the models take them; a cut's settings go before a plain `true`."""
        tree: dict[str, Any] = {}
        for path in sorted(self.leaves, key=len):
            leaf, parent = self.leaves[path], tree
            inner = [other for other in self.leaves if other[: len(path)] == path and other != path]
            if inner and (leaf.found.value is True or leaf.found.value == {} or leaf.found.value == "on"):
                continue
            if inner:
                other = self.leaves[inner[0]]
                text = f"found {show(leaf.found.value)}, but {seen_at(other)} sets its settings"
                self.refuse(leaf.found.place, f"{named(path, leaf.typed)}: {text}; keep one")
                continue
            for name in path[:-1]:
                parent = parent.setdefault(name, {})
            parent[path[-1]] = plain(leaf.found)
        for path in self.sections:
            parent = tree
            if path and find_key(path) and not any(leaf[: len(path)] == path[: len(leaf)] for leaf in self.leaves):
                for name in path:
                    parent = parent.setdefault(name, {})
        return tree


def plain(found: Located) -> Any:
    """The value without places."""
    if found.entries is not None:
        return {name: plain(value) for name, value in found.entries.items()}
    return [plain(item) for item in found.items] if found.items is not None else found.value


def named(path: KeyPath, typed: str) -> str:
    """The key as it was typed, and its canonical name if that is another."""
    canonical = ".".join(path)
    shown = printable(typed, 100)
    return canonical if typed == canonical else f"{shown} ({canonical})"


def seen_at(leaf: Leaf) -> str:
    """A key as typed, and its place as far as that helps to find it."""
    place = leaf.found.place
    if place.on_command_line:
        return f"{leaf.typed} in {place}"
    return leaf.typed if place.line is None else f"{leaf.typed} on line {place.line}"


def _is_blank(found: Located) -> bool:
    return found.value is None or found.value == {}


def _takes_null(path: KeyPath) -> bool:
    return path == _ACCUMULATION or find_key(path) is None or "null" in expected(path)


def _whole(found: Located) -> int | None:
    value = found.value
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def _suggest(name: str, section: KeyPath) -> str:
    """What is said of a name that tenfold does without; or the nearest real one: in this section, then as an alias
    here, then anywhere."""
    wanted = name.lower().replace("-", "_")
    if wanted in aliases.NEEDLESS:
        return aliases.NEEDLESS[wanted].advice
    prefix = ".".join(section)
    here = {known: ".".join((*section, known)) for known in keys_of(section)}
    anywhere = {path[-1]: ".".join(path) for path in reversed(all_leaves())}
    as_alias = {known: known for known in aliases.aliases_in(prefix)}
    names = [*aliases.aliases_in(""), *aliases.IN_SECTION]
    moved = {known: home for known in names if (home := aliases.home_of(known))}
    for exact in (here, anywhere, moved):
        if wanted in exact:
            return f"did you mean {exact[wanted]}?"
    for known, cutoff in ((here, 0.6), (as_alias, 0.75), (anywhere, 0.75), (moved, 0.75)):
        if near := _nearest(wanted, known, cutoff):
            return f"did you mean {known[near]}?"
    return f"expected {join_or(list(here))}"


def _nearest(wanted: str, known: Iterable[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(wanted[:100], list(known), n=1, cutoff=cutoff)), None)
