"""Tokens are chosen where a row saves more than it costs, and they save what was foretold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shapes import make_shape
from tenfold.errors import InputError
from tenfold.vocabulary import break_even, choose_tokens, extend, share_on_new_text
from tenfold.vocabulary.choose import LEAST_OCCURRENCES
from tenfold.vocabulary.merges import next_tokens
from tenfold.vocabulary.words import count_words
from vocabularies import DOMAIN, bpe, domain_texts, plain_texts, word_piece

TEXTS = domain_texts()
MAKERS = {"bpe": bpe, "wordpiece": word_piece}
each_kind = pytest.mark.parametrize("kind", MAKERS)


@each_kind
def test_the_texts_become_as_much_shorter_as_foretold(kind: str) -> None:
    tokenizer = MAKERS[kind](plain_texts())
    choice = choose_tokens(TEXTS, tokenizer, make_shape("llama"))
    grown = extend(tokenizer, choice.tokens)
    before = sum(len(tokenizer.encode(text, False)) for text in TEXTS)
    after = sum(len(grown.encode(text, False)) for text in TEXTS)
    assert choice.tokens_before == before
    assert after == choice.tokens_after
    assert after < 0.8 * before
    for text in TEXTS[:5]:
        assert grown.decode(grown.encode(text, False)) == tokenizer.decode(tokenizer.encode(text, False))


@each_kind
def test_the_most_useful_tokens_come_first(kind: str) -> None:
    tokenizer = MAKERS[kind](plain_texts())
    choice = choose_tokens(TEXTS, tokenizer, make_shape("llama"))
    assert list(choice.saved) == sorted(choice.saved, reverse=True)
    grown = extend(tokenizer, choice.tokens)
    for word in DOMAIN:
        assert len(grown.encode(f" {word}", False)) < len(tokenizer.encode(f" {word}", False))


def test_a_number_is_taken_as_it_is() -> None:
    choice = choose_tokens(TEXTS, bpe(plain_texts()), make_shape("llama"), count=5)
    assert len(choice.tokens) == 5


def test_a_row_pays_from_the_share_of_positions_that_its_product_costs() -> None:
    shape = make_shape("llama")
    positions = 100 * LEAST_OCCURRENCES * shape.block_parameters // shape.hidden_size
    assert break_even(shape, positions) == 100 * LEAST_OCCURRENCES
    assert break_even(replace(shape, layers=2 * shape.layers), positions) == 50 * LEAST_OCCURRENCES
    assert break_even(shape, 10) == LEAST_OCCURRENCES


def test_every_chosen_token_saves_what_pays() -> None:
    shape = make_shape("llama")
    choice = choose_tokens(TEXTS, bpe(plain_texts()), shape)
    assert min(choice.saved) >= choice.least == break_even(shape, choice.tokens_before)


def test_texts_that_did_not_choose_are_foretold_apart() -> None:
    tokenizer = bpe(plain_texts())
    choice = choose_tokens(TEXTS, tokenizer, make_shape("llama"))
    count = len(choice.tokens)
    share = share_on_new_text(TEXTS, tokenizer, count)
    unseen = domain_texts(seed=1)
    shorter, longer = (
        sum(len(one.encode(t, False)) for t in unseen) for one in (extend(tokenizer, choice.tokens), tokenizer)
    )
    assert share == pytest.approx(shorter / longer, abs=0.03)
    assert share_on_new_text(TEXTS[:1], tokenizer, count) is None


@each_kind
def test_rows_of_one_document_stay_together(kind: str) -> None:
    """Each document has words of its own in all of its rows: they save nothing on a new one, and are not foretold to.
    The control: with the rows dealt out one by one, every stretch knows the words of all documents."""
    tokenizer = MAKERS[kind](plain_texts())
    names = [f"{a}{b}{c}" for a in ("quor", "velm", "zant", "brix") for b in ("umab", "oxin", "idol") for c in "aeiou"]
    common = domain_texts(len(names) * 5)
    rows = [
        f"{text} {(name + ' ') * 8}" for name, text in zip([n for n in names for _ in range(5)], common, strict=True)
    ]
    count = len(names)

    def saved(texts: list[str]) -> float:
        share = share_on_new_text(texts, tokenizer, count)
        assert share is not None
        return 1 - share

    documents, new = rows[:250], rows[250:]
    grown = extend(tokenizer, choose_tokens(documents, tokenizer, make_shape("llama"), count).tokens)
    shorter, longer = (sum(len(one.encode(t, False)) for t in new) for one in (grown, tokenizer))
    true = 1 - shorter / longer
    dealt = [row for start in range(5) for row in documents[start::5]]
    assert saved(documents) == pytest.approx(true, rel=0.1)
    assert saved(dealt) > 1.2 * true


def test_a_merge_that_makes_a_known_token_is_left_out() -> None:
    tokenizer = bpe(plain_texts())
    words = count_words(TEXTS, tokenizer)
    (first, _), *_ = next_tokens(words, (), 8)
    assert first not in [token for token, _ in next_tokens(words, {first}, 8)]


def test_a_tokenizer_that_cannot_grow_is_refused() -> None:
    from tenfold.data.tokenizer import Tokenizer
    from tiny import tiny_tokenizer

    with pytest.raises(InputError, match="is a WordLevel, which cannot take more tokens"):
        choose_tokens(TEXTS, Tokenizer("words", tiny_tokenizer()), make_shape("llama"))
