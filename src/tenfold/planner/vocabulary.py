"""The vocabulary that a recipe asks for, on paper: its tokens, and the training rows divided by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

from tenfold.data import Dataset, Tokenizer, check_vocabulary, load_dataset, read_tokenizer, training_texts
from tenfold.data.account import plain, shown
from tenfold.errors import InputError
from tenfold.recipe import Recipe, WarmStartWish
from tenfold.shape import Shape
from tenfold.vocabulary import (
    Choice,
    Extension,
    choose_tokens,
    extend,
    kind_of,
    share_on_new_text,
    spelled,
    transfer,
)
from tenfold.workload import NewVocabulary, Workload


def plan_vocabulary(recipe: Recipe, shape: Shape, tokenizer: Tokenizer) -> NewVocabulary | None:
    """What cuts.warm_start says of tokens, worked out on the recipe's rows; None if it says nothing.

    Raises InputError where the texts are too few to choose from, or tokens and tokenizers do not fit.
    """
    wish = recipe.cuts.warm_start
    if wish in ("auto", False):
        return None
    settings = wish if isinstance(wish, WarmStartWish) else WarmStartWish()
    if settings.tokenizer is not None:
        return _replaced(recipe, shape, tokenizer, read_tokenizer(settings.tokenizer))
    tokens = settings.tokens
    if tokens is None:
        if settings.changes_layers:
            return None
        tokens = "auto"
    texts = training_texts(recipe)
    if isinstance(tokens, str) and tokens != "auto":
        return _extended(recipe, shape, tokenizer, _read_tokens(Path(tokens), tokenizer), None)
    choice = choose_tokens(texts, tokenizer, shape, tokens if isinstance(tokens, int) else None)
    check_choice(choice, tokens if isinstance(tokens, int) else None, recipe)
    planned = _extended(recipe, shape, tokenizer, choice.tokens, choice)
    return replace(planned, share_on_new_text=share_on_new_text(texts, tokenizer, len(choice.tokens)))


def check_choice(choice: Choice, wanted: int | None, recipe: Recipe) -> None:
    """Raises InputError if the texts gave no token, or fewer than were asked for."""
    if len(choice.tokens) >= (wanted or 1):
        return
    names = ", ".join(plain(Path(name).name) for name in recipe.data.train)
    found = f"{choice.tokens_before:,} positions of text"
    if wanted is None:
        raise InputError(
            f"cuts.warm_start.tokens: {names}: {found} are too few to choose from: no token saves {choice.least:,} of"
            " them; give more text, name the tokens in a file, or set cuts.warm_start: false"
        )
    raise InputError(
        f"cuts.warm_start.tokens: found {wanted:,}, but {names} ({found}) gives only {len(choice.tokens):,}; write at"
        " most that, or auto"
    )


def _read_tokens(path: Path, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The words of a file, one a line, and what a BPE has to learn on the way to each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cuts.warm_start.tokens: {plain(str(path))} cannot be read ({error}); write auto, a number, or a file with"
            " one word a line (.json: a list of tokens)"
        ) from None
    kind_of(tokenizer)
    if path.suffix == ".json":
        return _listed_tokens(path, lines)
    extension = Extension(json.loads(tokenizer.backend.to_str()), tokenizer.name)
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        if not (word := line.strip()):
            continue
        try:
            for step in extension.steps_to(spelled(word, tokenizer)):
                extension.add(step)
                found.append(step)
        except InputError as error:
            raise InputError(f"{plain(path.name)}:{number}: {error}") from None
    if not found:
        raise InputError(f"cuts.warm_start.tokens: {plain(str(path))} holds no word; write one a line, or auto")
    return tuple(found)


def _listed_tokens(path: Path, lines: list[str]) -> tuple[str, ...]:
    """Tokens in the tokenizer's own spelling, as `tenfold vocabulary --out` writes them."""
    try:
        found: object = json.loads("\n".join(lines))
    except ValueError as error:
        raise InputError(f"cuts.warm_start.tokens: {plain(str(path))} is not JSON ({error}); write it again") from None
    listed = cast("list[object]", found) if isinstance(found, list) else []
    if not listed or not all(isinstance(token, str) for token in listed):
        raise InputError(f"cuts.warm_start.tokens: {plain(str(path))} is not a list of tokens; write it again")
    return tuple(cast("list[str]", listed))


def _extended(
    recipe: Recipe, shape: Shape, tokenizer: Tokenizer, tokens: tuple[str, ...], choice: Choice | None
) -> NewVocabulary:
    new = extend(tokenizer, tokens)
    rows = max(shape.vocab_size, new.next_id)
    least = 0 if choice is None else choice.least
    return NewVocabulary(_workload(recipe, shape, new, rows), tokens, rows, len(tokens), least)


def _replaced(recipe: Recipe, shape: Shape, old: Tokenizer, new: Tokenizer) -> NewVocabulary:
    change = transfer(old, new)
    if not change.new_ids:
        raise InputError(
            f"cuts.warm_start.tokenizer: {shown(new.name)} has no token that the model lacks; leave it out"
        )
    return NewVocabulary(_workload(recipe, shape, new, change.rows), (), change.rows, len(change.new_ids))


def _workload(recipe: Recipe, shape: Shape, tokenizer: Tokenizer, rows: int) -> Workload:
    dataset: Dataset = load_dataset(recipe, tokenizer, shape.max_positions)
    check_vocabulary((*dataset.train, *dataset.evaluation), tokenizer, rows, recipe.model.name)
    return Workload.from_samples(dataset.train, dataset.evaluation, labels=len(dataset.labels))
