"""A few hundred of the mutations of bench/fuzz.py, and proof that each of its complaints can be heard."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fuzz
import fuzz_recipes
import fuzz_rows
from tenfold.data import Dataset
from tenfold.errors import InputError

SEED = 20_261_127


@pytest.mark.parametrize("fuzzed", [fuzz.fuzz_all_recipes, fuzz.fuzz_all_rows], ids=["recipes", "rows"])
def test_mutations_are_read_or_refused_and_nothing_else(fuzzed: Callable[[int, int], dict[str, Any]]) -> None:
    found = fuzzed(400, SEED)
    assert found["faults"] == []
    assert set(found["by_level"]) == {"byte", "token", "key", "value", "structure"}
    assert all(found["outcomes"][outcome] > 20 for outcome in fuzz.FINE), found["outcomes"]


def test_the_seeds_themselves_are_sound(tmp_path: Path) -> None:
    assert [fuzz_recipes.check(text.encode()) for text in fuzz_recipes.SEEDS] == [("read", "")] * 3
    for kind, suffix in fuzz_rows.SEEDS:
        content = fuzz_rows.written(fuzz_rows.rows_of(kind), suffix)
        outcome = fuzz_rows.check(content, suffix, kind, fuzz_rows.tokenizer(), tmp_path, random.Random(0))
        assert outcome == ("read", ""), (kind, suffix)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


COMPLAINTS: list[tuple[str, Callable[..., Any]]] = [
    ("traceback", raising(KeyError("x"))),
    ("bad_message", raising(InputError(""))),
    ("bad_message", raising(InputError("recipe.yaml: \x1b[31m"))),
    ("message_without_place", raising(InputError("something is wrong"))),
]


@pytest.mark.parametrize(("outcome", "parse"), COMPLAINTS, ids=lambda value: str(value)[:25])
def test_a_recipe_that_goes_wrong_is_heard_of(
    outcome: str, parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_recipes, "parse_recipe", parse)
    assert fuzz_recipes.check(b"x: 1")[0] == outcome


@pytest.mark.parametrize("path", list(fuzz_recipes.RANGES))
def test_a_value_out_of_range_is_heard_of(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loose:
        def model_dump(self) -> dict[str, Any]:
            tree: Any = -1
            for name in reversed(path.split(".")):
                tree = {name: tree}
            return tree

    monkeypatch.setattr(fuzz_recipes, "parse_recipe", lambda *_: Loose())
    assert fuzz_recipes.check(b"x: 1") == ("accepted_out_of_range", f"{path}: -1")


def _without_a_sample(dataset: Dataset) -> Dataset:
    return replace(dataset, train=dataset.train[1:])


def _without_a_rejection(dataset: Dataset) -> Dataset:
    return replace(dataset, account=dataset.account.model_copy(update={"rows_in": dataset.account.rows_in - 1}))


def _twice(dataset: Dataset) -> Dataset:
    return replace(dataset, evaluation=dataset.train)


@pytest.mark.parametrize("lose", [_without_a_sample, _without_a_rejection, _twice])
def test_a_lost_row_is_heard_of(
    lose: Callable[[Dataset], Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fuzz_rows.load_dataset
    monkeypatch.setattr(fuzz_rows, "load_dataset", lambda *given: lose(right(*given)))
    content = fuzz_rows.written(fuzz_rows.rows_of("text"), ".jsonl")
    outcome = fuzz_rows.check(content, ".jsonl", "text", fuzz_rows.tokenizer(), tmp_path, random.Random(0))
    assert outcome[0] == "unaccounted"


def test_a_line_that_nobody_read_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = fuzz_rows.load_dataset
    content = fuzz_rows.written(fuzz_rows.rows_of("text"), ".jsonl")

    def forgetful(recipe: Any, *others: Any) -> Dataset:
        (tmp_path / "rows.jsonl").write_bytes(content[: content.rstrip().rfind(b"\n") + 1])
        return right(recipe, *others)

    monkeypatch.setattr(fuzz_rows, "load_dataset", forgetful)
    outcome = fuzz_rows.check(content, ".jsonl", "text", fuzz_rows.tokenizer(), tmp_path, random.Random(0))
    assert outcome == ("unaccounted", "lines [12] are in the file or in the account, not in both")


def test_slow_ones_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SLOW_SECONDS", 0.0)
    assert fuzz.fuzz_all_recipes(3, 0)["outcomes"] == {"slow": 3}
