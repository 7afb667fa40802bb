"""Synthetic support tickets to fine-tune on without a download: who asks for what, in 24 intents.

The sentences stand in tickets.json. Training and test tickets share no template and only part of the words in the
slots, so a classifier must know that "reimbursement" and "refund" mean the same; counting words is not enough.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tenfold.errors import InputError

Split = Literal["train", "test"]

TEST_SHARE = 4
"""One test ticket for every four training tickets."""

RANK_OFFSET = 3
"""Intent number r (from 1) has weight 1 / (r + 3): Zipf's law, flattened so that the rarest has dozens of tickets."""

CARELESS_SHARE = 0.25
"""Share of writers who mistype often; a choice, as are the other shares below."""

TYPO_RATE = {"careful": 0.012, "careless": 0.08}
"""Chance that a word is mistyped."""

TYPO_LETTERS = 4
"""Words shorter than this stay as they are: one wrong letter would make them unreadable."""

NEIGHBOURS = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, key in enumerate(row)
}
"""Keys left and right of each letter on a QWERTY keyboard."""

CASUAL = {"please": "pls", "you": "u", "your": "ur", "are": "r", "because": "bc", "thanks": "thx", "tomorrow": "tmrw"}
"""How people in a hurry write."""

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
WORD = re.compile(r"[A-Za-z]+")


class BySplit(BaseModel):
    """The same kind of sentence or word, once for training and once for testing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The side of this split."""
        return self.train if split == "train" else self.test


class Phrasebook(BaseModel):
    """All words of the tickets, as they stand in tickets.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    slots: Mapping[str, BySplit]
    openers: BySplit
    closers: BySplit
    contexts: BySplit
    """True but irrelevant sentences, many of which name another intent."""
    intents: Mapping[str, BySplit]
    """Templates of each intent, the most frequent intent first."""


@dataclass(frozen=True)
class Ticket:
    """One ticket and what its writer wants."""

    text: str
    label: str


@dataclass(frozen=True)
class TicketFiles:
    """Where the tickets were written."""

    train: Path
    test: Path
    readme: Path
    train_rows: int
    test_rows: int
    labels: tuple[str, ...]


def read_phrasebook() -> Phrasebook:
    """The phrasebook that ships with the package."""
    return Phrasebook.model_validate_json(files("tenfold.demo").joinpath("tickets.json").read_text(encoding="utf-8"))


def write_tickets(folder: Path, seed: int = 0, rows: int = 4800) -> TicketFiles:
    """Write `rows` training tickets and a quarter as many test tickets as CSV files with the columns text and label.

    The same seed writes the same bytes on every computer. No text stands in both files or twice in one.
    """
    book = read_phrasebook()
    if rows < TEST_SHARE * len(book.intents):
        raise InputError(f"tickets: {rows} rows are too few, write at least {TEST_SHARE * len(book.intents)}")
    train = make_tickets(book, "train", rows, seed)
    test = make_tickets(book, "test", rows // TEST_SHARE, seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = TicketFiles(
        train=folder / "synthetic-tickets-train.csv",
        test=folder / "synthetic-tickets-test.csv",
        readme=folder / "README.txt",
        train_rows=len(train),
        test_rows=len(test),
        labels=tuple(sorted(book.intents)),
    )
    _write_csv(written.train, train)
    _write_csv(written.test, test)
    written.readme.write_text(_describe(written, seed), encoding="utf-8", newline="\n")
    return written


def make_tickets(book: Phrasebook, split: Split, rows: int, seed: int) -> list[Ticket]:
    """`rows` different tickets of one split in random order, their intents as unequal as in a real inbox."""
    rng = random.Random(f"{seed}/{split}")
    tickets: list[Ticket] = []
    seen: set[str] = set()
    for (label, templates), count in zip(book.intents.items(), counts_by_rank(len(book.intents), rows), strict=True):
        for number in range(count):
            template = templates.of(split)[number % len(templates.of(split))]
            text = _write_ticket(book, split, template, rng)
            while normalise(text) in seen:
                text = _write_ticket(book, split, template, rng)
            seen.add(normalise(text))
            tickets.append(Ticket(text, label))
    rng.shuffle(tickets)
    return tickets


def counts_by_rank(intents: int, rows: int) -> list[int]:
    """How many of `rows` tickets each intent gets, at least one and in all exactly `rows`."""
    weights = [1 / (rank + RANK_OFFSET) for rank in range(1, intents + 1)]
    counts = [1 + int((rows - intents) * weight / sum(weights)) for weight in weights]
    counts[0] += rows - sum(counts)
    return counts


def normalise(text: str) -> str:
    """Letters only, in lower case: two tickets that differ in digits or punctuation alone are the same ticket."""
    return " ".join(WORD.findall(text.lower()))


def _write_ticket(book: Phrasebook, split: Split, template: str, rng: random.Random) -> str:
    """One ticket around a template: greeting, background, the request, farewell, in the writer's manner."""
    parts = [_sentence(template)]
    if rng.random() < 0.4:
        parts.insert(rng.randrange(2), rng.choice(book.contexts.of(split)))
    if rng.random() < 0.08:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(book.contexts.of(split)))
    if rng.random() < 0.45:
        parts.insert(0, rng.choice(book.openers.of(split)))
    if rng.random() < 0.35:
        parts.append(rng.choice(book.closers.of(split)))
    text = _fill(" ".join(_sentence(part) for part in parts), book.slots, split, rng)
    return _misspell(_hurry(text, rng), rng)


def _sentence(text: str) -> str:
    """The text with a closing mark, so that the next sentence does not run into it."""
    return text if text[-1] in ".,!?:" else f"{text}."


def _fill(text: str, slots: Mapping[str, BySplit], split: Split, rng: random.Random) -> str:
    """Choose one of each [a|b] and a word for each {slot}; {number} and {amount} are drawn."""

    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "number":
            return rng.choice(("#{}", "{}", "no. {}")).format(rng.randrange(10_000, 1_000_000))
        if name == "amount":
            amount = f"{rng.randrange(4, 400)}.{rng.choice(('00', '50', '90', '99'))}"
            return rng.choice(("${}", "{} EUR", "€{}", "{} dollars")).format(amount)
        return rng.choice(slots[name].of(split))

    chosen = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    filled = SLOT.sub(word, chosen)
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match.group(1) + match.group(2).upper(), filled)


def _hurry(text: str, rng: random.Random) -> str:
    """Sometimes abbreviated, in lower case, or without punctuation."""
    if rng.random() < 0.12:
        text = WORD.sub(lambda match: CASUAL.get(match.group().lower(), match.group()), text)
    if rng.random() < 0.25:
        text = text.lower()
    if rng.random() < 0.12:
        text = re.sub(r"[,.!?](?= |$)", "", text)
    return text


def _misspell(text: str, rng: random.Random) -> str:
    """Typing errors in words, never in numbers."""
    rate = TYPO_RATE["careless" if rng.random() < CARELESS_SHARE else "careful"]

    def word(match: re.Match[str]) -> str:
        letters = match.group()
        return _mistype(letters, rng) if len(letters) >= TYPO_LETTERS and rng.random() < rate else letters

    return WORD.sub(word, text)


def _mistype(word: str, rng: random.Random) -> str:
    """The word with one error after its first letter: a neighbouring key, a letter lost, doubled or swapped."""
    place = rng.randrange(1, len(word))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    kind = rng.choice(("neighbour", "lost", "doubled", "swapped"))
    if kind == "neighbour":
        return before + rng.choice(NEIGHBOURS[letter.lower()]) + after
    if kind == "lost":
        return before + after
    if kind == "doubled":
        return before + letter * 2 + after
    return before[:-1] + letter + before[-1] + after


def _write_csv(path: Path, tickets: Sequence[Ticket]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows((ticket.text, ticket.label) for ticket in tickets)


def _describe(written: TicketFiles, seed: int) -> str:
    """What README.txt beside the files says."""
    return (
        "Synthetic support tickets, made by `tenfold demo`. No customer wrote any of them.\n\n"
        f"{written.train.name}: {written.train_rows} tickets to train on\n"
        f"{written.test.name}: {written.test_rows} tickets to test on\n"
        f"Columns: text, label ({len(written.labels)} intents, unequally frequent). Seed {seed}.\n\n"
        "The two files share no sentence template and only part of their words, so the test asks for meaning.\n"
        "Use them to compare costs and methods; they say nothing about the quality on your own tickets.\n"
    )
