"""What the checks need that look at rows and token ids alone."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.data import Dataset, Tokenizer
from tenfold.data.examples import Example
from tenfold.recipe import Task

EXAMPLES = 8
"""Rows that are rendered and tokenised once more: a wrong template shows in the first of them."""


@dataclass(frozen=True)
class Paper:
    """A run's rows, as they were read and as the model will see them."""

    task: Task
    dataset: Dataset
    tokenizer: Tokenizer
    vocab_size: int
    """Rows of the model's embedding."""
    model: str
    examples: tuple[Example, ...] = ()
    """The first training rows as they were read."""


def share(part: int, whole: int) -> str:
    """3, 12 -> "3 of 12 (25 %)"."""
    return f"{part:,} of {whole:,} ({100 * part / max(1, whole):.3g} %)"
