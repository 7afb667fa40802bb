"""What each initialiser makes of a new row, on models where the right answer is known."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
import transformers

from shapes import make_shape
from tenfold.cuts import WarmStart
from tenfold.cuts.warm_start import Method
from tenfold.data.tokenizer import Tokenizer, read_tokenizer
from tenfold.errors import InputError
from tenfold.rig.model import build_rig, load_pretrained
from tenfold.rig.rig import Rig, Source
from tenfold.rig.warm.compose import fit_composition
from tenfold.rig.warm.distil import distilled_rows
from tenfold.rig.warm.donor import fit_map, imported_rows
from tenfold.rig.warm.focus import company_vectors, similar_rows, sparsemax
from tenfold.rig.warm.means import mean_rows, random_rows, subtoken_rows
from tenfold.rig.warm.request import Request, tables_of
from tenfold.rig.warm.transplant import matching_pursuit, transplanted_rows
from tenfold.rig.warm.vocabulary import INITIALISERS, change_vocabulary
from tenfold.rig.warm.windows import align, choose_windows
from tenfold.vocabulary import choose_tokens, extend, transfer
from tenfold.vocabulary.splits import splits_of
from vocabularies import bpe, domain_texts, growing_folder, plain_texts, save_tokenizer

TEXTS = tuple(domain_texts(40))


def request_of(
    folder: Path, family: str = "llama", texts: Sequence[str] = TEXTS, donor: str = "", count: int = 20
) -> Request:
    """New tokens for a tiny model."""
    growing_folder(folder, family)
    kind = transformers.AutoModelForCausalLM if family != "bert" else transformers.AutoModel
    model = kind.from_pretrained(folder)
    old = read_tokenizer(folder)
    new = extend(old, choose_tokens(TEXTS, old, make_shape(family), count if family != "bert" else 5).tokens)
    return Request(model, transfer(old, new), old, new, tuple(texts), donor)


def make_donor(request: Request, folder: Path, width: int = 48, seed: int = 3) -> Path:
    """A model that knows the new tokens, whose tables are an affine image of ours, in another width."""
    torch.manual_seed(seed)
    ours = tables_of(request.model)
    config = transformers.LlamaConfig(
        vocab_size=request.transfer.rows, hidden_size=width, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    image = torch.randn(ours.input.shape[1], width)
    with torch.no_grad():
        for table, own in ((model.model.embed_tokens, ours.input), (model.lm_head, ours.output)):
            rows = torch.cat([own[: request.old.next_id], wanted_rows(own, request)]) if own is not None else None
            if rows is not None:
                table.weight.copy_(rows @ image + 0.3)
    model.save_pretrained(folder)
    return save_tokenizer(request.new, folder)


def wanted_rows(table: torch.Tensor, request: Request) -> torch.Tensor:
    """The rows that the donor knows: some mixture of old ones that no mean of parts would give."""
    count = len(request.transfer.new_ids)
    return 0.7 * table[5 : 5 + count] - 0.4 * table[50 : 50 + count]


def test_the_controls(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    table = tables_of(request.model).input
    noise, mean = random_rows(request), mean_rows(request)
    assert noise.input.std() == pytest.approx(0.02, rel=0.1)
    assert noise.output is not None
    assert not torch.equal(noise.input, noise.output)
    assert not torch.equal(noise.input, random_rows(replace(request, seed=1)).input)
    torch.testing.assert_close(mean.input[3], table[: request.old.next_id].mean(0))


def test_a_token_of_parts_is_their_mean(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    rows, tables = subtoken_rows(request), tables_of(request.model)
    for place, parts in enumerate(request.transfer.parts):
        torch.testing.assert_close(rows.input[place], tables.input[list(parts)].mean(0))
        assert rows.output is not None
        assert tables.output is not None
        torch.testing.assert_close(rows.output[place], tables.output[list(parts)].mean(0))


def test_composition_is_learned_from_the_models_own_tokens() -> None:
    """Rows of old tokens that follow a rule of their parts' rows: new ones follow it too, where means do not."""
    rule = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)) / 8

    def ruled(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left @ rule - 0.5 * right + 0.1

    torch.manual_seed(0)
    table = torch.randn(2000, 32)
    pairs = torch.randint(0, 1000, (1000, 2))
    table[1000:] = ruled(table[pairs[:, 0]], table[pairs[:, 1]])
    weight = fit_composition(table, torch.cat([pairs, torch.arange(1000, 2000)[:, None]], 1))
    left, right = torch.randn(20, 32), torch.randn(20, 32)
    found = torch.cat([left, right, torch.ones(20, 1)], 1) @ weight
    assert torch.nn.functional.cosine_similarity(found, ruled(left, right)).min() > 0.95
    assert torch.nn.functional.cosine_similarity((left + right) / 2, ruled(left, right)).mean() < 0.5


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_tokens_split_into_what_they_are_made_of(family: str, tmp_path: Path) -> None:
    request = request_of(tmp_path / "base", family)
    splits = splits_of(request.new)
    spelled = {number: token for token, number in request.new.backend.get_vocab().items()}
    wholes = {whole for _, _, whole in splits}
    assert wholes >= set(request.transfer.new_ids) if family == "llama" else len(wholes) > 20
    for left, right, whole in splits:
        assert spelled[left] + spelled[right].removeprefix("##") == spelled[whole]


def test_a_tied_model_has_one_table(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base", "qwen3")
    assert tables_of(request.model).output is None
    assert all(make(replace(request, donor="")).output is None for make in (random_rows, subtoken_rows, similar_rows))


def test_a_donor_of_another_width_is_mapped(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    request = replace(request, donor=str(make_donor(request, tmp_path / "donor")))
    rows, tables = imported_rows(request), tables_of(request.model)
    for found, table in ((rows.input, tables.input), (rows.output, tables.output)):
        assert found is not None
        assert table is not None
        wanted, control = wanted_rows(table, request), subtoken_rows(request).input
        assert torch.nn.functional.cosine_similarity(found, wanted).mean() > 0.95
        assert torch.nn.functional.cosine_similarity(control, wanted).mean() < 0.5


def test_a_transplant_has_the_donors_combination(tmp_path: Path) -> None:
    """A row that is a combination of shared rows there is the same combination here."""
    request = request_of(tmp_path / "base")
    folder = make_donor(request, tmp_path / "donor", width=200)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tables = tables_of(request.model)
    with torch.no_grad():  # without the shift, which a combination does not carry over
        model.model.embed_tokens.weight -= 0.3
        model.lm_head.weight -= 0.3
    model.save_pretrained(folder)
    rows = transplanted_rows(replace(request, donor=str(folder)))
    similarity = torch.nn.functional.cosine_similarity(rows.input, wanted_rows(tables.input, request))
    assert similarity.mean() > 0.95


def test_matching_pursuit_finds_a_sparse_combination() -> None:
    torch.manual_seed(0)
    dictionary = torch.randn(50, 30)
    targets = 2.0 * dictionary[[3, 4]] - dictionary[[10, 20]] + 0.5 * dictionary[[30, 31]]
    chosen, weights = matching_pursuit(targets, dictionary, 3)
    assert [set(row) for row in chosen.tolist()] == [{3, 10, 30}, {4, 20, 31}]
    torch.testing.assert_close((weights[:, None] @ dictionary[chosen])[:, 0], targets, rtol=1e-3, atol=1e-3)


def test_ridge_regression_finds_an_affine_map() -> None:
    torch.manual_seed(0)
    source, weight = torch.randn(500, 8), torch.randn(8, 5)
    found, bias = fit_map(source, source @ weight + 2.0)
    torch.testing.assert_close(found, weight, rtol=0.05, atol=0.05)
    torch.testing.assert_close(bias, torch.full((5,), 2.0), rtol=0.05, atol=0.05)


def test_tokens_in_the_same_company_are_alike() -> None:
    """2 and 3 stand between the same neighbours, 4 and 5 between others."""
    texts = [[10, token, 11, 12] for token in (2, 3)] * 20 + [[20, token, 21, 22] for token in (4, 5)] * 20
    vectors, seen = company_vectors(texts, 30)
    assert vectors[2] @ vectors[3] > 0.9
    assert vectors[2] @ vectors[4] < 0.5
    assert seen.nonzero().flatten().tolist() == [2, 3, 4, 5, 10, 11, 12, 20, 21, 22]


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    weights = sparsemax(torch.tensor([[1.0, 0.9, -1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.55, 0.45, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]))


@pytest.mark.parametrize("make", [similar_rows, imported_rows, transplanted_rows])
def test_rows_from_elsewhere_are_as_long_as_means_of_parts(make, tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    request = replace(request, donor=str(make_donor(request, tmp_path / "donor")))
    rows, parts = make(request), subtoken_rows(request)
    for found, reference in ((rows.input, parts.input), (rows.output, parts.output)):
        assert found is not None
        assert reference is not None
        torch.testing.assert_close(found.norm(dim=1), reference.norm(dim=1), rtol=1e-3, atol=1e-5)


def test_focus_mixes_old_rows(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    rows = similar_rows(request)
    assert rows.input.shape == subtoken_rows(request).input.shape
    assert not torch.equal(rows.input, subtoken_rows(request).input)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "bert"])
def test_distilled_rows_do_what_the_old_tokens_did(family: str, tmp_path: Path) -> None:
    """The state after a new token, and the loss of the text, are nearer to those of the old vocabulary."""
    request = request_of(tmp_path / "base", family)
    before = [weight.clone() for weight in request.model.parameters()]
    fitted = distilled_rows(request)
    assert all(torch.equal(a, b) for a, b in zip(before, request.model.parameters(), strict=True))
    assert all(weight.requires_grad for weight in request.model.parameters())
    errors = {name: state_error(request, rows) for name, rows in (("fit", fitted), ("means", subtoken_rows(request)))}
    assert errors["fit"] < errors["means"]
    assert errors["fit"] < state_error(request, random_rows(request))
    assert torch.equal(distilled_rows(request).input, fitted.input), "the same request, the same rows"


def state_error(request: Request, rows: object) -> float:
    from tenfold.rig.warm import distil
    from tenfold.rig.warm.request import Rows

    rows = cast("Rows", rows)
    windows = choose_windows(request.texts, request.old, request.new, frozenset(request.transfer.new_ids), 16, 10_000)
    kept = distil._kept_rows(request)  # pyright: ignore[reportPrivateUsage]
    lesson = distil._teach(request, windows, kept)  # pyright: ignore[reportPrivateUsage]
    numbers = torch.full((request.transfer.rows,), -1)
    numbers[torch.tensor(request.transfer.new_ids)] = torch.arange(len(rows.input))
    with torch.no_grad():
        error = distil.input_error(request, lesson, numbers[lesson.ids], rows.input)
        if lesson.last is not None:
            output = rows.input if rows.output is None else rows.output
            error = error + distil.output_error(lesson, numbers[lesson.ids], output)
    return float(error)


def test_windows_show_every_token_where_there_is_room() -> None:
    old = bpe(plain_texts())
    new = extend(old, choose_tokens(TEXTS, old, make_shape("llama"), 20).tokens)
    wanted = frozenset(range(old.next_id, new.next_id))
    windows = choose_windows(TEXTS, old, new, wanted, 8, 400)
    assert 400 <= sum(len(window.new) for window in windows) < 450
    there = {token for text in TEXTS for token in new.encode(text, False)} & wanted
    assert there == {token for window in windows for token in window.new if token in wanted}
    for window in windows:
        assert old.decode(window.old) == new.decode(window.new)
        assert all(
            new.decode(window.new[: i + 1]) == old.decode(window.old[: end + 1]) for i, end in enumerate(window.ends)
        )


def test_windows_show_common_tokens_first_where_there_is_no_room() -> None:
    """Of a token that stands there nine times and one that does four times: one, the other, and the first again."""
    old = bpe(plain_texts())
    new = extend(old, choose_tokens(TEXTS, old, make_shape("llama"), 20).tokens)
    first, second = old.next_id, old.next_id + 1
    texts = [f"to {new.decode([token])} it" for token in [second] * 4 + [first] * 9]
    windows = choose_windows(texts, old, new, frozenset((first, second)), 12, 13)
    shown = [token for window in windows for token in window.new if token in (first, second)]
    assert shown == [first, second, first]


def test_tokens_are_matched_by_where_they_end() -> None:
    assert align([(0, 2), (2, 4), (4, 6)], [(0, 4), (4, 6)]) == [1, 2]
    assert align([(0, 2), (2, 5)], [(0, 3), (3, 5)]) == [-1, 1]
    assert align([(0, 1), (0, 1), (1, 2)], [(0, 1), (0, 1), (1, 2)]) == [0, 1, 2]


@pytest.mark.parametrize("make", [distilled_rows, similar_rows])
def test_what_learns_from_text_needs_text(make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cuts\.warm_start\.initialise: "):
        make(request_of(tmp_path / "base", texts=()))


def test_a_donor_that_knows_no_new_token_is_refused(tmp_path: Path) -> None:
    request = request_of(tmp_path / "base")
    folder = growing_folder(tmp_path / "donor")
    with pytest.raises(InputError, match="knows none of the 20 new tokens"):
        imported_rows(replace(request, donor=str(folder)))


@pytest.mark.parametrize("method", INITIALISERS)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_old_rows_stay_and_new_ones_follow(family: str, method: Method, tmp_path: Path) -> None:
    """Also in a table that had more rows than tokens: none of those that stay unused is touched."""
    request = request_of(tmp_path / "base", family, count=5)
    request = replace(request, donor=str(make_donor(request, tmp_path / "donor")))
    tables = tables_of(copy.deepcopy(request.model))
    used, more = request.old.next_id, len(request.transfer.new_ids)
    assert len(tables.input) == 300 > used + more
    change_vocabulary(request.model, request, method)
    changed = tables_of(request.model)
    size = max(300, used + more)
    for old, new in ((tables.input, changed.input), (tables.output, changed.output)):
        if old is None or new is None:
            assert old is new
            continue
        assert len(new) == size
        assert torch.equal(new[:used], old[:used])
        assert not torch.equal(new[used : used + more], old[used : used + more])
        assert torch.equal(new[used + more :], old[used + more :])
    assert request.model.config.vocab_size == size


def test_another_whole_vocabulary_takes_its_rows_along(tmp_path: Path) -> None:
    growing_folder(tmp_path / "base")
    new = bpe([*plain_texts(), *domain_texts()], 400)
    save_tokenizer(new, tmp_path / "new")
    rig = load_pretrained(build_rig(Source(str(tmp_path / "base")), "text"))
    before = tables_of(rig.model).input
    changed = WarmStart(tokenizer=str(tmp_path / "new"), initialise="subtokens").apply(rig)
    after, old = changed.model.get_input_embeddings().weight, read_tokenizer(tmp_path / "base")  # type: ignore[union-attr]
    vocabulary = old.backend.get_vocab()
    kept = [(number, vocabulary[token]) for token, number in new.backend.get_vocab().items() if token in vocabulary]
    assert len(after) == new.next_id
    for number, former in kept:
        assert torch.equal(after[number], before[former])
    assert set(changed.rows) == set(range(new.next_id)) - {number for number, _ in kept}


def test_a_vocabulary_without_the_special_tokens_is_refused(tmp_path: Path) -> None:
    growing_folder(tmp_path / "base")
    bare = Tokenizer("bare", bpe(domain_texts()).backend, {"eos_token": "</s>"})
    (tmp_path / "bare").mkdir()
    bare.backend.save(str(tmp_path / "bare" / "tokenizer.json"))
    rig: Rig = load_pretrained(build_rig(Source(str(tmp_path / "base")), "text"))
    with pytest.raises(InputError, match="bare has no bos_token, which the model uses"):
        WarmStart(tokenizer=str(tmp_path / "bare")).apply(rig)
