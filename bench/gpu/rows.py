"""The rows that every system trains on: the same token ids, in the same order, from one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

Workload = Literal["fixed", "packed"]

MEAN_TOKENS, SIGMA, CAP_TOKENS, PROMPT_SHARE = 180, 0.45, 1024, 0.37
"""`packed`: lognormal lengths like GSM8K's with a chat template's, and the share of each row that is a prompt."""

FIRST_ID = 4
"""Ids below are the tokenizer's special ones."""

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """One training row: token ids, of which the first `prompt` bear no loss."""

    input_ids: tuple[int, ...]
    prompt: int

    @property
    def targets(self) -> int:
        """How many tokens bear loss; the first one never can."""
        return len(self.input_ids) - max(1, self.prompt)

    @property
    def labels(self) -> list[int]:
        """Labels as transformers takes them: not shifted, IGNORED where there is no loss."""
        masked = max(1, self.prompt)
        return [IGNORED] * masked + list(self.input_ids[masked:])


def steps_of_rows(
    workload: Workload, rows: int, length: int, vocabulary: int, steps: int, seed: int = 0
) -> list[list[Row]]:
    """The rows of so many optimizer steps, `rows` x `length` tokens each, to the token.

    `fixed`: every row is `length` long and all of it bears loss. `packed`: short rows until the tokens of the step are
    used up, the last one cut to fit, so that the step's size never changes.
    """
    draw = random.Random(seed)
    ids = torch.Generator().manual_seed(seed)

    def row(tokens: int, prompt: int) -> Row:
        return Row(tuple(torch.randint(FIRST_ID, vocabulary, (tokens,), generator=ids).tolist()), prompt)

    if workload == "fixed":
        return [[row(length, 0) for _ in range(rows)] for _ in range(steps)]
    return [
        [row(tokens, round(tokens * PROMPT_SHARE)) for tokens in _short_lengths(rows * length, draw)]
        for _ in range(steps)
    ]


def _short_lengths(budget: int, draw: random.Random) -> list[int]:
    centre = math.log(MEAN_TOKENS) - SIGMA**2 / 2
    lengths: list[int] = []
    while (left := budget - sum(lengths)) > 0:
        lengths.append(min(CAP_TOKENS, left, max(8, round(draw.lognormvariate(centre, SIGMA)))))
    if lengths[-1] < 8 and len(lengths) > 1:  # too short to learn from: the row before takes it
        tail = lengths.pop()
        lengths[-1] += tail
    return lengths


def padded(rows: Sequence[Row], device: str) -> dict[str, Any]:
    """Rows side by side, padded on the right to the longest; no mask where nothing is padded."""
    longest = max(len(row.input_ids) for row in rows)
    fill = [longest - len(row.input_ids) for row in rows]
    batch = {
        "input_ids": torch.tensor([[*row.input_ids, *[0] * pad] for row, pad in zip(rows, fill, strict=True)]),
        "labels": torch.tensor([[*row.labels, *[IGNORED] * pad] for row, pad in zip(rows, fill, strict=True)]),
    }
    if any(fill):
        mask = [[1] * len(row.input_ids) + [0] * pad for row, pad in zip(rows, fill, strict=True)]
        batch["attention_mask"] = torch.tensor(mask)
    return {name: value.to(device) for name, value in batch.items()}


def end_to_end(rows: Sequence[Row], device: str) -> dict[str, Any]:
    """Rows one after the other in a single line, positions restarted, lengths beside it (int32, on the CPU)."""
    line = {
        "input_ids": torch.tensor([[token for row in rows for token in row.input_ids]]),
        "labels": torch.tensor([[label for row in rows for label in row.labels]]),
        "position_ids": torch.tensor([[place for row in rows for place in range(len(row.input_ids))]]),
    }
    batch: dict[str, Any] = {name: value.to(device) for name, value in line.items()}
    batch["packed_seq_lengths"] = torch.tensor([len(row.input_ids) for row in rows], dtype=torch.int32)
    return batch


def targets(rows: Sequence[Row]) -> int:
    """How many tokens bear loss."""
    return sum(row.targets for row in rows)


def tokens(rows: Sequence[Row]) -> int:
    """Useful tokens: everything but padding."""
    return sum(len(row.input_ids) for row in rows)
