"""Rows of a wanted distribution of lengths, as lengths for a plan on paper and as files for a run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from shapes import WORDS


def lengths_of(spec: str, rows: int, seed: int = 0) -> list[int]:
    """`fixed:512`: all so long. `mixed:180`: lognormal around a mean of so many tokens, like instructions."""
    kind, _, number = spec.partition(":")
    tokens = int(number)
    if kind == "fixed":
        return [tokens] * rows
    draw = random.Random(seed)
    centre = math.log(tokens) - 0.6**2 / 2
    return [min(6 * tokens, max(8, round(draw.lognormvariate(centre, 0.6)))) for _ in range(rows)]


def write_rows(path: Path, task: str, lengths: list[int], labels: int = 8) -> Path:
    """JSONL rows of words of the little tokenizer; in task text an end token takes the place of the last word."""
    draw = random.Random(0)
    with path.open("w") as file:
        for length in lengths:
            words = " ".join(f"w{draw.randrange(4, WORDS)}" for _ in range(length - (task == "text")))
            row = {"text": words} | ({"label": f"label{draw.randrange(labels)}"} if task == "classify" else {})
            file.write(json.dumps(row) + "\n")
    return path
