"""What task the rows of a file are for, by the columns of the first one."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold.data.account import shown
from tenfold.data.lines import Row
from tenfold.data.read import locate, read_rows
from tenfold.errors import InputError
from tenfold.recipe import Task

TASKS: tuple[tuple[Task, tuple[str, ...]], ...] = (
    ("sft", ("messages",)),
    ("sft", ("prompt", "completion")),
    ("classify", ("text", "label")),
    ("text", ("text",)),
)
"""Columns that a task needs; the first that are all there decide."""


def guess_task(names: Sequence[str]) -> Task:
    """The task of files or dataset ids. Raises InputError if there is no row, or no column says."""
    for source in locate(names)[:1]:
        row = next((row for row in read_rows(source, lambda _: None) if isinstance(row, Row)), None)
        if row is None:
            raise InputError(f"{shown(source.name)} has no row that can be read")
        for task, columns in TASKS:
            if all(column in row.values for column in columns):
                return task
        found = ", ".join(shown(column) for column in list(row.values)[:12]) or "none"
        raise InputError(
            f"{shown(source.name)}: found the columns {found}; tenfold reads messages, prompt and completion, text and"
            " label, or text: add --set task=text (or another) and --set data.columns.text=..."
        )
    raise InputError("no data; name a file after the model")
