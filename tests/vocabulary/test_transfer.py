"""Which rows two vocabularies share, and what the others are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tenfold.errors import InputError
from tenfold.vocabulary import extend, shared_ids, transfer
from vocabularies import DOMAIN, bpe, domain_texts, plain_texts, word_piece


def test_an_extension_keeps_all_and_divides_the_rest() -> None:
    old = bpe(plain_texts())
    new = extend(old, ("my", "myo"))
    change = transfer(old, new)
    assert change.rows == new.next_id
    assert change.kept == tuple((number, number) for number in range(old.next_id))
    assert change.tokens == ("my", "myo")
    assert [old.decode(parts) for parts in change.parts] == ["my", "myo"]


def test_another_vocabulary_keeps_what_both_have() -> None:
    old, new = bpe(plain_texts()), bpe(domain_texts(), 400)
    change = transfer(old, new)
    vocabulary = new.backend.get_vocab()
    assert change.rows == len(vocabulary)
    assert {number for number, _ in change.kept} | set(change.new_ids) == set(vocabulary.values())
    for token, number, parts in zip(change.tokens, change.new_ids, change.parts, strict=True):
        assert vocabulary[token] == number
        assert old.backend.decode(list(parts)) == new.backend.decode([number])


def test_special_tokens_are_the_same_that_do_the_same() -> None:
    """Another spelling keeps the row, one token with several roles that of the first. The control: none is named."""
    old = bpe(plain_texts())
    fresh = bpe(domain_texts(), 400, specials=("<fill>", "<what>", "<text>"))
    named = {"pad_token": "<fill>", "unk_token": "<what>", "bos_token": "<text>", "eos_token": "<text>"}
    number, former = fresh.backend.token_to_id, old.backend.token_to_id
    wanted = {number("<fill>"): former("<pad>"), number("<what>"): former("<unk>"), number("<text>"): former("</s>")}
    kept = dict(transfer(old, replace(fresh, special_tokens=named)).kept)
    assert {new: kept.get(new) for new in wanted} == wanted
    nameless = transfer(replace(old, special_tokens={}), replace(fresh, special_tokens={}))
    assert not wanted.keys() & dict(nameless.kept).keys()


def test_a_vocabulary_that_lacks_a_special_token_is_refused() -> None:
    old = bpe(plain_texts())
    with pytest.raises(InputError, match="tiny-bpe has no pad_token, which the model uses"):
        transfer(old, replace(bpe(domain_texts()), special_tokens={"eos_token": "</s>"}))


def test_pieces_inside_of_words_are_divided_inside_of_words() -> None:
    old = word_piece(plain_texts())
    new = extend(old, (*DOMAIN, "##cardium"))
    change = transfer(old, new)
    parts = [old.backend.id_to_token(number) for number in change.parts[-1]]
    assert "".join(part.removeprefix("##") for part in parts) == "cardium"
    assert all(part.startswith("##") for part in parts)


def test_tokens_written_in_different_ways_are_refused() -> None:
    one, other = bpe(plain_texts()), word_piece(plain_texts())
    for call in (transfer, shared_ids):
        with pytest.raises(InputError, match=r"bytes written as letters \(Ġcell\) .* word pieces \(cell, ##s\)"):
            call(one, other)


def test_vocabularies_with_little_in_common_are_refused() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    from tenfold.data.tokenizer import Tokenizer

    few = Backend(models.BPE({"a": 0, "b": 1}, []))
    few.pre_tokenizer, few.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    with pytest.raises(InputError, match="few shares 2 tokens with tiny-bpe, and 100 are needed"):
        shared_ids(Tokenizer("few", few), bpe(plain_texts()))
