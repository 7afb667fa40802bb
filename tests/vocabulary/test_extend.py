"""A tokenizer grows behind what it was: old ids stay, old texts divide as before, special tokens are untouched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenfold.data.tokenizer import Tokenizer, read_tokenizer
from tenfold.errors import InputError
from tenfold.vocabulary import extend, spelled
from vocabularies import DOMAIN, SPECIAL, bpe, domain_texts, plain_texts, save_tokenizer, word_piece

NEW = ("my", "myo", "myoc")


@pytest.fixture(params=[False, True], ids=["specials in the model", "specials apart"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return bpe(plain_texts(), specials_apart=request.param)


def test_old_ids_stay(tokenizer: Tokenizer) -> None:
    before = tokenizer.backend.get_vocab(with_added_tokens=True)
    after = extend(tokenizer, NEW).backend.get_vocab(with_added_tokens=True)
    assert {token: after[token] for token in before} == before
    assert [after[token] for token in NEW] == [tokenizer.next_id + place for place in range(3)]


def test_special_tokens_are_still_special(tokenizer: Tokenizer) -> None:
    grown = extend(tokenizer, NEW)
    assert grown.special_ids == tokenizer.special_ids
    for token in SPECIAL:
        assert grown.encode(f"{token}the myocardium", False)[0] == tokenizer.backend.token_to_id(token)


def test_texts_without_the_new_tokens_divide_as_before(tokenizer: Tokenizer) -> None:
    grown = extend(tokenizer, NEW)
    for text in plain_texts(20, seed=5):
        assert grown.encode(text, False) == tokenizer.encode(text, False)
    assert grown.encode("the myocardium", False) != tokenizer.encode("the myocardium", False)


def test_transformers_reads_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    grown = extend(tokenizer, NEW)
    folder = save_tokenizer(grown, tmp_path / "grown")
    for loaded in (Tokenizer.from_transformers(folder), read_tokenizer(folder)):
        for text in domain_texts(5):
            assert loaded.encode(text, True) == grown.encode(text, True)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("my", "my"), "has 'my' already; leave it out"),
        (("Ġthe",), "has 'Ġthe' already; leave it out"),
        (("</s>",), "would take the place of the special token '</s>'"),
        (("Ġmy</s>",), "would take the place of the special token '</s>'"),
        (("myocard",), r"is \d tokens to this tokenizer; a new one joins two"),
    ],
)
def test_tokens_that_cannot_be_added_are_refused(tokenizer: Tokenizer, tokens: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extend(tokenizer, tokens)


def test_words_are_spelled_as_the_model_has_them() -> None:
    assert spelled("cell", bpe(plain_texts())) == "Ġcell"
    assert spelled("Cell", word_piece(plain_texts())) == "cell"
    with pytest.raises(InputError, match="'blood cell' is 2 words to this tokenizer"):
        spelled("blood cell", bpe(plain_texts()))


def test_whole_words_join_a_word_piece() -> None:
    old = word_piece(plain_texts())
    grown = extend(old, DOMAIN)
    assert all(len(grown.encode(word, False)) == 1 for word in DOMAIN)
    assert all(len(old.encode(word, False)) > 1 for word in DOMAIN)
