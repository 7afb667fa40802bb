"""Files to a dataset: samples for training and evaluation, and an account in which every row appears once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenfold.data.account import DataAccount, Places, Rejection, Tally, plain, shown
from tenfold.data.examples import Example, make_example, texts_of, used_columns
from tenfold.data.fit import Fitted, Overlong, fit, share_of
from tenfold.data.lines import Row
from tenfold.data.read import Source, hash_sources, locate, read_rows
from tenfold.data.tokenize import Draft, Sample, learns_to_stop, tokenize
from tenfold.data.tokenizer import Tokenizer
from tenfold.errors import InputError

if TYPE_CHECKING:
    from tenfold.recipe import Columns, Recipe, Task

BATCH_ROWS = 1000
"""Rows tokenised at once: enough to keep all cores busy, few enough to hold."""

OVERLONG: dict[Task, Overlong] = {"classify": "truncate", "sft": "drop", "text": "split"}
"""What happens to rows over the limit if the recipe does not say."""


@dataclass(frozen=True)
class Dataset:
    """All samples of a run, in the order of their rows."""

    train: tuple[Sample, ...]
    evaluation: tuple[Sample, ...]
    """Empty if evaluation is turned off."""
    labels: tuple[str, ...]
    """classify: the names of the label numbers; whole numbers in their order, other names in the alphabet's."""
    account: DataAccount
    eval_account: DataAccount
    """All zeros if evaluation is turned off."""
    sha256: str
    """Over the bytes of all files, training before evaluation."""


@dataclass(frozen=True)
class _Limits:
    """What the recipe, the tokenizer and the model together say about rows."""

    task: Task
    columns: Columns
    max_length: int
    overlong: Overlong
    drop_faults: bool
    drop_duplicates: bool


@dataclass
class _Side:
    """Training or evaluation while it is being read."""

    used: list[Fitted] = field(default_factory=list[Fitted])
    tally: Tally = field(default_factory=Tally)
    contradictions: Places = field(default_factory=Places)
    """Rows whose tokens occurred before under another label."""


def load_dataset(recipe: Recipe, tokenizer: Tokenizer, max_positions: int) -> Dataset:
    """Read, check, tokenise and divide the rows of a recipe; `max_positions` is the model's own limit in tokens."""
    wish = recipe.data
    limits = _limits(recipe, tokenizer, max_positions)
    train_sources = locate(wish.train, wish.split, wish.subset)
    eval_sources = locate(wish.eval, wish.split, wish.subset) if wish.eval else ()
    train = _read(train_sources, limits, tokenizer, wish.max_rows)
    labels = _labels(train, limits.task)
    if eval_sources:
        evaluation = _read(eval_sources, limits, tokenizer, None)
        _check_labels(evaluation.used, labels, limits.task)
    else:
        evaluation = _hold_out(train, wish.eval_fraction)
    _count_overlap(train.used, evaluation)
    _note_stops(train, limits.task, tokenizer)
    held_out = 0 if eval_sources else len(evaluation.used)
    numbers = {label: number for number, label in enumerate(labels)}
    return Dataset(
        train=_samples(train.used, numbers),
        evaluation=_samples(evaluation.used, numbers),
        labels=labels,
        account=train.tally.account(train.used, len(train.used), held_out, limits.max_length),
        eval_account=evaluation.tally.account(evaluation.used, 0, len(evaluation.used), limits.max_length),
        sha256=hash_sources([*train_sources, *eval_sources]),
    )


def training_texts(recipe: Recipe) -> tuple[str, ...]:
    """What the rows of a recipe say that are trained on, for those who choose a vocabulary by it: no row held out."""
    wish = recipe.data
    limits = _Limits(recipe.task, wish.columns, 0, "truncate", wish.bad_rows == "drop", False)
    sources = locate(wish.train, wish.split, wish.subset)
    examples = list(_examples(sources, limits, Tally(), wish.max_rows))
    held = set[float]()
    if not wish.eval and wish.eval_fraction > 0:
        held = _held_shares([share_of(example.content) for example in examples], wish.eval_fraction)
    return tuple(text for example in examples if share_of(example.content) not in held for text in texts_of(example))


def first_examples(recipe: Recipe, most: int) -> tuple[Example, ...]:
    """The first rows of the training files as they are read, before any tokenizer; bad rows are passed over."""
    wish = recipe.data
    limits = _Limits(recipe.task, wish.columns, 0, "truncate", True, False)
    sources = locate(wish.train, wish.split, wish.subset)
    return tuple(itertools.islice(_examples(sources, limits, Tally(), wish.max_rows), most))


def check_vocabulary(samples: Iterable[Sample], tokenizer: Tokenizer, vocab_size: int, model: str) -> None:
    """InputError if a sample holds an id that the model's embedding of `vocab_size` rows does not have."""
    for sample in samples:
        highest = max(sample.input_ids, default=0)
        if highest >= vocab_size:
            token = tokenizer.backend.id_to_token(highest)
            raise InputError(
                f"{sample.where}: token {shown(token)} has the id {highest}, but {plain(model)} knows only "
                f"{vocab_size} ids; use the tokenizer that belongs to the model"
            )


def _limits(recipe: Recipe, tokenizer: Tokenizer, max_positions: int) -> _Limits:
    wish = recipe.data
    if wish.max_length is not None and wish.max_length > max_positions:
        raise InputError(
            f"data.max_length is {wish.max_length}, but the model takes {max_positions} tokens; "
            f"write at most {max_positions}"
        )
    # RoBERTa counts two positions more than it can use; its tokenizer knows the true limit.
    own_limit = min(max_positions, tokenizer.max_length or max_positions)
    max_length = own_limit if wish.max_length is None else wish.max_length
    least = 1 + len(tokenizer.prefix_ids) + len(tokenizer.suffix_ids) if recipe.task == "classify" else 2
    if max_length < least:
        raise InputError(f"data.max_length is {max_length}, too short for any row; write at least {least}")
    overlong = wish.overlong or OVERLONG[recipe.task]
    return _Limits(recipe.task, wish.columns, max_length, overlong, wish.bad_rows == "drop", wish.duplicates == "drop")


def _read(sources: Sequence[Source], limits: _Limits, tokenizer: Tokenizer, max_rows: int | None) -> _Side:
    side = _Side()
    examples = _examples(sources, limits, side.tally, max_rows)
    seen: dict[tuple[bytes, ...], set[str | None]] = {}
    while batch := list(itertools.islice(examples, BATCH_ROWS)):
        for example, draft in zip(batch, tokenize(batch, tokenizer), strict=True):
            if isinstance(draft, Draft):
                draft = fit(draft, example.content, limits.max_length, limits.overlong)
            if isinstance(draft, Rejection):
                _reject(draft, limits, side.tally)
            else:
                _keep(draft, seen, limits, side)
    if not side.used:
        names = ", ".join(plain(source.name) for source in sources)
        why = f"{side.tally.rows_in} rows read: {side.tally.reasons()}" if side.tally.rows_in else "it has no rows"
        raise InputError(f"{names}: nothing to use; {why}")
    if side.contradictions.rows:
        first = side.contradictions.where[0]
        side.tally.note(f"{side.contradictions.rows} rows repeat an earlier text under another label (first {first})")
    return side


def _examples(sources: Sequence[Source], limits: _Limits, tally: Tally, max_rows: int | None) -> Iterator[Example]:
    rows = itertools.chain.from_iterable(read_rows(source, tally.note) for source in sources)
    noted: set[str] = set()
    for row in rows:
        if max_rows is not None and tally.rows_in >= max_rows:
            tally.note(f"only the first {max_rows} rows were read (data.max_rows)")
            return
        tally.rows_in += 1
        if isinstance(row, Row) and row.source not in noted:
            noted.add(row.source)
            _note_unused(row, limits, tally)
        example = make_example(row, limits.task, limits.columns) if isinstance(row, Row) else row
        if isinstance(example, Rejection):
            _reject(example, limits, tally)
        else:
            yield example


def _note_unused(row: Row, limits: _Limits, tally: Tally) -> None:
    used = used_columns(row, limits.task, limits.columns)
    unused = [shown(column) for column in row.values if column not in used]
    if unused:
        more = f" and {len(unused) - 12} more" if len(unused) > 12 else ""
        tally.note(f"{plain(row.source)}: columns not used: {', '.join(unused[:12])}{more}")


def _reject(rejection: Rejection, limits: _Limits, tally: Tally) -> None:
    if rejection.is_fault and not limits.drop_faults:
        cure = "mend the row, or set data.bad_rows: drop to leave such rows out, counted"
        raise InputError(f"{rejection.where}: {rejection.detail}; {cure}")
    tally.reject(rejection)


def _keep(row: Fitted, seen: dict[tuple[bytes, ...], set[str | None]], limits: _Limits, side: _Side) -> None:
    first = row.pieces[0]
    labels = seen.setdefault(tuple(row.piece_keys()), set())
    if first.label not in labels:
        if labels:
            side.contradictions.add(row.where)
        labels.add(first.label)
    elif limits.drop_duplicates:
        detail = "the same tokens and label as an earlier row"
        side.tally.reject(Rejection(first.source, first.line, "duplicate", detail, row.tokens))
        return
    else:
        side.tally.duplicates.add(row.where)
    side.used.append(row)


def _labels(side: _Side, task: Task) -> tuple[str, ...]:
    if task != "classify":
        return ()
    names = {row.pieces[0].label or "" for row in side.used}
    if len(names) < 2:
        raise InputError(
            f"all {len(side.used)} rows have the label {shown(next(iter(names)))}; give at least two labels"
        )
    alike: dict[str, str] = {}
    for name in sorted(names):
        other = alike.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            side.tally.note(f"the labels {shown(other)} and {shown(name)} differ only by case or spaces")
    if all(name.removeprefix("-").isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _check_labels(rows: Iterable[Fitted], labels: Sequence[str], task: Task) -> None:
    known = set(labels)
    for row in rows:
        label = row.pieces[0].label
        if task == "classify" and label not in known:
            listed = ", ".join(shown(name) for name in labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise InputError(
                f"{row.where}: the label {shown(label)} is not among the training labels ({listed}); "
                "mend it, or add training rows for it"
            )


def _hold_out(train: _Side, fraction: float) -> _Side:
    """Move about `fraction` of the rows out of training: by a hash of their content, never by their position.

    Adding rows moves no row to the other side, and duplicates stay together. The same rows are held out whatever
    the seed and the model, so that runs can be compared. At least one row is held out and one is kept.
    """
    side = _Side()
    if fraction <= 0:
        return side
    share: dict[tuple[bytes, ...], float] = {}
    places = [share.setdefault(tuple(row.piece_keys()), row.share) for row in train.used]
    if len(share) < 2:
        raise InputError(
            f"the {len(places)} training rows hold only 1 that differs, so none can be held out; "
            "give data.eval, or set data.eval_fraction: 0"
        )
    out_of_training = _held_shares(places, fraction)
    held = [place in out_of_training for place in places]
    side.used = [row for row, out in zip(train.used, held, strict=True) if out]
    side.tally.rows_in = len(side.used)
    train.used = [row for row, out in zip(train.used, held, strict=True) if not out]
    return side


def _held_shares(shares: Sequence[float], fraction: float) -> set[float]:
    """Those of `shares` that are held out: below `fraction`, at least one, and never all."""
    lowest, highest = min(shares, default=0.0), max(shares, default=0.0)
    threshold = min(fraction, highest)
    return {share for share in shares if share < threshold or share == lowest}


def _count_overlap(train: Iterable[Fitted], evaluation: _Side) -> None:
    trained = {key for row in train for key in row.piece_keys()} if evaluation.used else set[bytes]()
    for row in evaluation.used:
        if any(key in trained for key in row.piece_keys()):
            evaluation.tally.overlap.add(row.where)


def _note_stops(side: _Side, task: Task, tokenizer: Tokenizer) -> None:
    """Say how many rows were cut before the token that ends them."""
    if task == "text" and tokenizer.eos_id is None:
        side.tally.note("the tokenizer has no eos_token: texts are learned without an end")
    cut = sum(not learns_to_stop(row.pieces[-1], tokenizer) for row in side.used) if task == "sft" else 0
    if cut:
        side.tally.note(f"{cut} of {len(side.used)} rows do not end with a stop token, so they do not teach to stop")


def _samples(rows: Iterable[Fitted], numbers: dict[str, int]) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            piece.input_ids,
            piece.loss_mask,
            None if piece.label is None else numbers[piece.label],
            piece.source,
            piece.line,
        )
        for row in rows
        for piece in row.pieces
    )
