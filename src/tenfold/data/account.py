"""Where every row went: trained on, held out, or rejected for a reason and at which line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, model_validator

MOST_PLACES = 20
"""How many `file:line` places an account names per reason; the count is always complete."""

POLICIES = frozenset({"overlong", "no_loss_tokens", "duplicate"})
"""Reasons that follow from a chosen setting or from the length of a sound row; all others are faults of the data."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row that is not used, and why."""

    source: str
    line: int
    reason: str
    """A short code: "malformed", "null", "overlong", ..."""
    detail: str
    """What was found, and where it helps what to write instead; one line."""
    tokens: int = 0
    """Tokens left out with the row, where the row got as far as being tokenised."""

    @property
    def where(self) -> str:
        """`file:line`."""
        return place(self.source, self.line)

    @property
    def is_fault(self) -> bool:
        """Whether the data is at fault, so that `data.bad_rows` decides what happens."""
        return self.reason not in POLICIES


class RejectedRows(BaseModel):
    """All rows rejected for one reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    tokens: int = 0
    where: tuple[str, ...] = ()
    """The first few as `file:line`."""
    lines: dict[str, str] = {}
    """All of them by file, as ranges: "3-17,21"."""
    example: str = ""
    """The detail of the first."""


class DataAccount(BaseModel):
    """The account of one side (training or evaluation). rows_in is always rows_trained + rows_held_out + rows_rejected.

    On the training side `rows_held_out` went to evaluation by `data.eval_fraction`. On the evaluation side it counts
    the rows evaluated and `rows_trained` is 0. Duplicates are counted over both sides; all other counts speak of the
    rows this side uses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: int = 0
    rows_trained: int = 0
    rows_held_out: int = 0
    rows_rejected: int = 0
    rejections: dict[str, RejectedRows] = {}
    samples: int = 0
    """Rows used, or more where long rows were split."""
    tokens: int = 0
    loss_tokens: int = 0
    """Targets that bear loss; for classify one per row."""
    rows_truncated: int = 0
    tokens_truncated: int = 0
    truncated_where: tuple[str, ...] = ()
    rows_split: int = 0
    split_where: tuple[str, ...] = ()
    duplicate_rows: int = 0
    """Rows whose token ids and label occurred before, whether kept or dropped."""
    duplicate_where: tuple[str, ...] = ()
    overlap_rows: int = 0
    """Evaluation rows whose token ids also occur in training; more than 0 makes a quality figure worthless."""
    overlap_where: tuple[str, ...] = ()
    max_length_tokens: int = 0
    notes: tuple[str, ...] = ()
    """What a reader should know that is no rejection: a byte order mark, unused columns, ..."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        counted = sum(rejected.rows for rejected in self.rejections.values())
        if self.rows_rejected != counted:
            raise ValueError(f"{self.rows_rejected} rows rejected but {counted} by reason")
        if self.rows_in != self.rows_trained + self.rows_held_out + self.rows_rejected:
            raise ValueError(
                f"{self.rows_in} rows in, but {self.rows_trained} trained, {self.rows_held_out} held out "
                f"and {self.rows_rejected} rejected"
            )
        return self


@dataclass
class Places:
    """A count of rows that remembers the first few places."""

    rows: int = 0
    tokens: int = 0
    where: list[str] = field(default_factory=list[str])

    def add(self, where: str, tokens: int = 0) -> None:
        """One more row."""
        self.rows += 1
        self.tokens += tokens
        if len(self.where) < MOST_PLACES:
            self.where.append(where)


@dataclass
class Tally:
    """The account while rows are still coming in."""

    rows_in: int = 0
    rejected: dict[str, Places] = field(default_factory=dict[str, Places])
    rejected_lines: dict[str, dict[str, list[int]]] = field(default_factory=dict[str, dict[str, list[int]]])
    """By reason and file."""
    examples: dict[str, str] = field(default_factory=dict[str, str])
    duplicates: Places = field(default_factory=Places)
    overlap: Places = field(default_factory=Places)
    notes: list[str] = field(default_factory=list[str])

    def reject(self, rejection: Rejection) -> None:
        """Count a row out."""
        self.rejected.setdefault(rejection.reason, Places()).add(rejection.where, rejection.tokens)
        self.examples.setdefault(rejection.reason, rejection.detail)
        files = self.rejected_lines.setdefault(rejection.reason, {})
        files.setdefault(plain(rejection.source), []).append(rejection.line)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    def reasons(self) -> str:
        """The rejections by reason, most frequent first, each with its first place and detail."""
        ordered = sorted(self.rejected.items(), key=lambda item: -item[1].rows)
        return ", ".join(
            f"{places.rows} {reason} ({places.where[0]}: {self.examples[reason]})" for reason, places in ordered
        )

    def account(self, used: Sequence[UsedRow], trained: int, held_out: int, max_length: int) -> DataAccount:
        """The finished account; `used` are the rows of this side."""
        truncated, split = Places(), Places()
        for row in used:
            if row.tokens_cut:
                truncated.add(row.where, row.tokens_cut)
            if row.samples > 1:
                split.add(row.where)
        return DataAccount(
            rows_in=self.rows_in,
            rows_trained=trained,
            rows_held_out=held_out,
            rows_rejected=sum(places.rows for places in self.rejected.values()),
            rejections={
                reason: RejectedRows(
                    rows=places.rows,
                    tokens=places.tokens,
                    where=tuple(places.where),
                    lines={file: ranges(lines) for file, lines in self.rejected_lines[reason].items()},
                    example=self.examples[reason],
                )
                for reason, places in self.rejected.items()
            },
            samples=sum(row.samples for row in used),
            tokens=sum(row.tokens for row in used),
            loss_tokens=sum(row.loss_tokens for row in used),
            rows_truncated=truncated.rows,
            tokens_truncated=truncated.tokens,
            truncated_where=tuple(truncated.where),
            rows_split=split.rows,
            split_where=tuple(split.where),
            duplicate_rows=self.duplicates.rows,
            duplicate_where=tuple(self.duplicates.where),
            overlap_rows=self.overlap.rows,
            overlap_where=tuple(self.overlap.where),
            max_length_tokens=max_length,
            notes=tuple(self.notes),
        )


class UsedRow(Protocol):
    """What an account needs to know of a row that is used."""

    @property
    def where(self) -> str: ...
    @property
    def samples(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def loss_tokens(self) -> int: ...
    @property
    def tokens_cut(self) -> int: ...


def ranges(numbers: Sequence[int]) -> str:
    """[5, 3, 4, 9] -> 3-5,9"""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number <= found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def place(source: str, line: int) -> str:
    """`file:line` on one line whatever the file is called."""
    return f"{plain(source)}:{line}"


def plain(text: str) -> str:
    """The text with control characters escaped, so that a message stays one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value: object, most: int = 60) -> str:
    """A value as it may stand in a message: quoted, one line, at most `most` characters."""
    if isinstance(value, int) and abs(value) >= 10**most:  # Python refuses to print more than 4,300 digits
        return "a huge number"
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
