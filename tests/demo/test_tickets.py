"""The synthetic tickets: how many, how alike, how hard."""

from __future__ import annotations

import csv
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from tenfold.demo.tickets import (
    Phrasebook,
    Ticket,
    TicketFiles,
    counts_by_rank,
    make_tickets,
    normalise,
    read_phrasebook,
    write_tickets,
)
from tenfold.errors import InputError

INTENTS = 24
COUNTED_WORDS = (2 / INTENTS, 0.75)
"""Accuracy that counting words may reach: twice chance, so that there is something to learn, and well below what
knowing the meaning of words reaches (about 0.9 with a fine-tuned sentence encoder)."""


@pytest.fixture(scope="module")
def book() -> Phrasebook:
    return read_phrasebook()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> TicketFiles:
    return write_tickets(tmp_path_factory.mktemp("tickets"))


def read(path: Path) -> list[Ticket]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Ticket(row["text"], row["label"]) for row in csv.DictReader(file)]


def test_files_hold_what_they_promise(written: TicketFiles) -> None:
    train, test = read(written.train), read(written.test)
    assert (len(train), len(test)) == (4800, 1200) == (written.train_rows, written.test_rows)
    assert {ticket.label for ticket in train} == {ticket.label for ticket in test} == set(written.labels)
    assert len(written.labels) == INTENTS
    assert all(ticket.text.strip() and "{" not in ticket.text and "[" not in ticket.text for ticket in train + test)


def test_the_files_say_that_they_are_synthetic(written: TicketFiles) -> None:
    assert "synthetic" in written.train.name
    assert "synthetic" in written.test.name
    readme = written.readme.read_text(encoding="utf-8")
    assert "Synthetic" in readme
    assert written.train.name in readme


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    one, same, other = (write_tickets(tmp_path / name, seed, rows=240) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for kind in ("train", "test", "readme"):
        assert getattr(one, kind).read_bytes() == getattr(same, kind).read_bytes()
        assert getattr(one, kind).read_bytes() != getattr(other, kind).read_bytes()


def test_no_text_stands_twice(written: TicketFiles) -> None:
    train, test = ([normalise(ticket.text) for ticket in read(path)] for path in (written.train, written.test))
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)
    assert not set(train) & set(test)


def test_digits_and_marks_make_no_other_ticket() -> None:
    assert normalise("Where is order #123?!") == normalise("where is ORDER 98 ,,")
    assert normalise("Where is order 1") != normalise("Where is my order 1")


def test_templates_are_many_and_not_shared(book: Phrasebook) -> None:
    for templates in book.intents.values():
        assert len(set(templates.train)) == len(templates.train) >= 8
        assert len(set(templates.test)) == len(templates.test) >= 5
    train = [normalise(text) for templates in book.intents.values() for text in templates.train]
    test = [normalise(text) for templates in book.intents.values() for text in templates.test]
    assert len(set(train + test)) == len(train + test)
    assert not set(book.contexts.train) & set(book.contexts.test)


def test_slots_share_only_part_of_their_words(book: Phrasebook) -> None:
    for name, words in book.slots.items():
        assert set(words.test) - set(words.train), name
    shared = [len(set(words.test) & set(words.train)) / len(set(words.test)) for words in book.slots.values()]
    assert 0 < sum(shared) / len(shared) < 0.25


def test_every_slot_is_known(book: Phrasebook) -> None:
    sentences = [*book.contexts.train, *book.contexts.test, *book.openers.train, *book.closers.train]
    for templates in book.intents.values():
        sentences += [*templates.train, *templates.test]
    used = set(re.findall(r"\{(\w+)\}", " ".join(sentences)))
    assert used == set(book.slots) | {"number", "amount"}


def test_intents_are_unequally_frequent(written: TicketFiles) -> None:
    counts = Counter(ticket.label for ticket in read(written.train))
    assert 5 < max(counts.values()) / min(counts.values()) < 10
    assert min(counts.values()) >= 50


@pytest.mark.parametrize("rows", [INTENTS, 100, 1200, 4801])
def test_counts_add_up(rows: int) -> None:
    counts = counts_by_rank(INTENTS, rows)
    assert sum(counts) == rows
    assert min(counts) >= 1
    assert counts == sorted(counts, reverse=True)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="95 rows are too few, write at least 96"):
        write_tickets(tmp_path, rows=95)


def test_writers_mistype(book: Phrasebook) -> None:
    """Many words of the tickets stand nowhere in the phrasebook, but few of all."""
    known = set(normalise(book.model_dump_json()).split())
    words = [word for ticket in make_tickets(book, "train", 960, 0) for word in normalise(ticket.text).split()]
    unknown = sum(word not in known for word in words) / len(words)
    assert 0.01 < unknown < 0.06


def nearest_centroid_accuracy(train: list[Ticket], test: list[Ticket]) -> float:
    """Bag of words, weighted by inverse document frequency; the intent whose mean ticket is nearest."""
    bags = [Counter(normalise(ticket.text).split()) for ticket in train]
    documents = Counter(word for bag in bags for word in bag)
    rarity = {word: math.log(len(train) / count) for word, count in documents.items()}

    def unit(bag: Counter[str]) -> dict[str, float]:
        weights = {word: count * rarity[word] for word, count in bag.items() if word in rarity}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        return {word: weight / length for word, weight in weights.items()}

    sums: dict[str, Counter[str]] = {}
    for bag, ticket in zip(bags, train, strict=True):
        sums.setdefault(ticket.label, Counter()).update(unit(bag))
    lengths = {label: math.sqrt(sum(value**2 for value in total.values())) for label, total in sums.items()}

    def guess(ticket: Ticket) -> str:
        words = unit(Counter(normalise(ticket.text).split()))
        scores = {
            label: sum(weight * total.get(word, 0) for word, weight in words.items()) / lengths[label]
            for label, total in sums.items()
        }
        return max(scores, key=lambda label: scores[label])

    return sum(guess(ticket) == ticket.label for ticket in test) / len(test)


def test_counting_words_is_not_enough_but_better_than_chance(written: TicketFiles) -> None:
    train, test = read(written.train), read(written.test)
    low, high = COUNTED_WORDS
    assert low < nearest_centroid_accuracy(train, test) < high


def test_the_bound_would_see_a_leak_and_would_see_noise(written: TicketFiles) -> None:
    """Tickets of the training templates are easy; tickets with shuffled labels are not learnable."""
    train = read(written.train)
    low, high = COUNTED_WORDS
    assert nearest_centroid_accuracy(train[1200:], train[:1200]) > high
    labels = [ticket.label for ticket in train]
    random.Random(0).shuffle(labels)
    noise = [Ticket(ticket.text, label) for ticket, label in zip(train, labels, strict=True)]
    assert nearest_centroid_accuracy(noise[1200:], noise[:1200]) < low + 0.05
