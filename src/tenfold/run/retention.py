"""What a model still knows of its old domain: the same texts scored before and after.

Language models by their loss in nats per byte, which does not depend on how a vocabulary divides the text; encoders by
how near their states stay to those of the base. Where a recipe names no text of the old domain, a language model writes
it itself: what the base says unasked is its old domain by definition.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F

from tenfold.data.lines import Row
from tenfold.data.read import locate, read_rows
from tenfold.data.tokenize import Sample
from tenfold.data.tokenizer import Tokenizer
from tenfold.errors import InputError
from tenfold.rig.attention import attention_kernels
from tenfold.rig.precision import autocast
from tenfold.rig.rig import Rig

MOST_TEXTS = 16
LONGEST_CHARACTERS = 2000
"""Of a text that is scored: 32 kilobytes in all, a second or two of a small model, three times."""

WRITTEN_TOKENS = 128
"""Of a text that the base writes itself."""

Unit = Literal["nats per byte", "cosine"]


@dataclass(frozen=True)
class OldDomain:
    """Texts, and how the base scored on them before anything was changed."""

    source: str
    """Where the texts are from."""
    texts: tuple[str, ...]
    unit: Unit
    before: float
    start: float
    """After the warm start, before the first step."""
    states: tuple[tuple[float, ...], ...] = ()
    """Of an encoder, the base's own: one mean state a text."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> OldDomain | None:
        """What `write` wrote; None if it did not."""
        if not path.is_file():
            return None
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["states"] = tuple(tuple(state) for state in values["states"])
        values["texts"] = tuple(values["texts"])
        return cls(**values)

    def score(self, rig: Rig, tokenizer: Tokenizer) -> float:
        """Of the rig as it is now."""
        if self.unit == "nats per byte":
            return nats_per_byte(rig, tokenizer, self.texts)
        found = mean_states(rig, tokenizer, self.texts)
        return float(F.cosine_similarity(found, torch.tensor(self.states), dim=1).mean())


def old_texts(names: Sequence[str], column: str) -> tuple[str, ...]:
    """The first texts of files or data sets. Raises InputError if they hold none."""
    found: list[str] = []
    for source in locate(names):
        for row in read_rows(source, lambda note: None):
            text = row.values.get(column) if isinstance(row, Row) else None
            if isinstance(text, str) and text.strip():
                found.append(text[:LONGEST_CHARACTERS])
            if len(found) == MOST_TEXTS:
                return tuple(found)
    if not found:
        raise InputError(
            f"cuts.warm_start.old_text: {', '.join(names)}: no row with a {column!r} column; set data.columns.text"
        )
    return tuple(found)


def longest_tokens(rig: Rig) -> int:
    """Tokens of a text that the model has positions for, with a special one at each end."""
    return int(getattr(rig.model.config.get_text_config(), "max_position_embeddings", 512)) - 2


def fitting(texts: Sequence[str], tokenizers: Sequence[Tokenizer], longest: int) -> tuple[str, ...]:
    """The beginnings of `texts` that are at most `longest` tokens to every tokenizer."""
    found: list[str] = []
    for text in texts:
        while (most := max(len(one.encode(text, False)) for one in tokenizers)) > longest:
            text = text[: int(0.9 * len(text) * longest / most)]
        found.append(text)
    return tuple(text for text in found if text.strip())


@torch.no_grad()
def written_texts(rig: Rig, tokenizer: Tokenizer) -> tuple[str, ...]:
    """What the base writes when nothing is asked, sampled as it would by itself."""
    begin = next((number for number in (tokenizer.bos_id, tokenizer.eos_id) if number is not None), 0)
    start = torch.full((MOST_TEXTS, 1), begin, device=rig.device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generate = cast("Any", rig.model.eval()).generate
        ids = generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=WRITTEN_TOKENS,
            pad_token_id=begin, eos_token_id=None,
        )  # fmt: skip
    texts = (tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids[:, 1:].tolist())
    return tuple(text for text in texts if text)


@torch.no_grad()
def nats_per_byte(rig: Rig, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """The loss of `texts`, summed over their tokens and divided by their UTF-8 bytes."""
    training = rig.model.training
    rig.model.eval()
    total = 0.0
    for batch in rig.layout(_samples(tokenizer, texts)):
        placed = batch.to(rig.device)
        with autocast(rig.device, rig.dtype), attention_kernels(placed):
            total += float(rig.loss(rig.model, placed))
    rig.model.train(training)
    return total / sum(len(text.encode()) for text in texts)


@torch.no_grad()
def mean_states(rig: Rig, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """[texts, hidden] float32: the mean of the last hidden states over each text's tokens."""
    training = rig.model.training
    rig.model.eval()
    found: list[torch.Tensor] = []
    for ids in tokenizer.encode_batch(list(texts), add_special_tokens=True):
        row = torch.tensor([ids[: longest_tokens(rig)]], device=rig.device)
        with autocast(rig.device, rig.dtype):
            states = rig.model.base_model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state
        found.append(states[0].float().mean(0).cpu())
    rig.model.train(training)
    return torch.stack(found)


def _samples(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Sample]:
    """Every token of a text bears loss, the first as well where something can stand before it."""
    begin = next((number for number in (tokenizer.bos_id, tokenizer.eos_id) if number is not None), None)
    samples: list[Sample] = []
    for line, ids in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False), 1):
        whole = ids if begin is None else [begin, *ids]
        samples.append(Sample(whole, b"\0" + b"\1" * (len(whole) - 1), None, "old domain", line))
    return samples
