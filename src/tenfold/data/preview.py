"""A sample as text, with what is learned between marks: the quickest way to see a wrong mask."""

from __future__ import annotations

import itertools

from tenfold.data.tokenize import Sample
from tenfold.data.tokenizer import Tokenizer

MARKS = ("⟦", "⟧")


def preview(sample: Sample, tokenizer: Tokenizer, most_tokens: int = 400) -> str:
    """The decoded sample; tokens that bear loss stand between ⟦ and ⟧, special tokens are written out."""
    ids, mask = list(sample.input_ids[:most_tokens]), sample.loss_mask
    more = f" ... {len(sample.input_ids) - most_tokens} more tokens" if len(sample.input_ids) > most_tokens else ""
    if mask is None:
        return f"{tokenizer.decode(ids)}{more} -> label {sample.label}"
    parts: list[str] = []
    for learned, run in itertools.groupby(zip(mask, ids, strict=False), key=lambda pair: pair[0]):
        text = tokenizer.decode([token for _, token in run])
        parts.append(f"{MARKS[0]}{text}{MARKS[1]}" if learned else text)
    return "".join(parts) + more
