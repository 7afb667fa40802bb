"""Limits, labels, duplicates and the held-out side: every row is somewhere, and counted there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_recipes import byte_tokenizer, lines, load, make_recipe, write
from tenfold.data import DataAccount, Dataset, RejectedRows, check_vocabulary, load_dataset, preview
from tenfold.errors import InputError


def labelled(*rows: tuple[str, object]) -> str:
    return lines(*({"text": text, "label": label} for text, label in rows))


def adds_up(dataset: Dataset) -> bool:
    return all(
        account.rows_in == account.rows_trained + account.rows_held_out + account.rows_rejected
        and account.rows_rejected == sum(rejected.rows for rejected in account.rejections.values())
        for account in (dataset.account, dataset.eval_account)
    )


LONG = {
    "classify": labelled(("abcdef", "x"), ("ab", "y")),
    "sft": lines({"prompt": "abc", "completion": "def"}, {"prompt": "a", "completion": "b"}),
    "sft, long prompt": lines({"prompt": "abcdef", "completion": "g"}, {"prompt": "a", "completion": "b"}),
    "text": lines({"text": "abcdefghi"}, {"text": "ab"}),
}

OVERLONG: list[tuple[str, str | None, int, list[str], dict[str, object]]] = [
    ("classify", None, 5, ["<s>abc</s> -> label 0", "<s>ab</s> -> label 1"], {"tokens_truncated": 3}),
    ("classify", "drop", 5, [], {}),
    ("sft", None, 5, ["<s>a⟦b</s>⟧"], {"rows_rejected": 1}),
    ("sft", "truncate", 5, ["<s>abc⟦d⟧", "<s>a⟦b</s>⟧"], {"rows_truncated": 1, "tokens_truncated": 3}),
    ("sft, long prompt", "truncate", 5, ["<s>a⟦b</s>⟧"], {"rows_rejected": 1, "rows_truncated": 0}),
    ("text", None, 5, ["<s>⟦abcd⟧", "e⟦fghi⟧", "<s>⟦ab</s>⟧"], {"rows_split": 1, "samples": 3, "tokens_truncated": 1}),
    ("text", None, 6, ["<s>⟦abcde⟧", "f⟦ghi</s>⟧", "<s>⟦ab</s>⟧"], {"rows_split": 1, "tokens_truncated": 0}),
    ("text", "truncate", 5, ["<s>⟦abcd⟧", "<s>⟦ab</s>⟧"], {"rows_truncated": 1, "tokens_truncated": 6}),
    ("text", "drop", 5, ["<s>⟦ab</s>⟧"], {"rows_rejected": 1, "rows_trained": 1}),
    ("text", "drop", 11, ["<s>⟦abcdefghi</s>⟧", "<s>⟦ab</s>⟧"], {"rows_rejected": 0}),
]  # fmt: skip


@pytest.mark.parametrize("case", OVERLONG, ids=lambda case: "-".join(map(str, case[:3])))
def test_rows_over_the_limit(case: tuple[str, str | None, int, list[str], dict[str, object]], tmp_path: Path) -> None:
    name, overlong, length, seen, counts = case
    task = name.partition(",")[0]
    tokenizer = byte_tokenizer(bos=True, suffix="</s>")
    path = write(tmp_path / "x.jsonl", LONG[name])
    if not seen:
        with pytest.raises(InputError, match="all 1 rows have the label 'y'"):
            load(task, path, tokenizer, max_length=length, overlong=overlong)
        return
    dataset = load(task, path, tokenizer, max_length=length, overlong=overlong)
    assert [preview(sample, tokenizer) for sample in dataset.train] == seen
    account = dataset.account
    assert {key: getattr(account, key) for key in counts} == counts
    assert adds_up(dataset) and account.rows_in == 2 and account.max_length_tokens == length
    assert all(len(sample.input_ids) <= length for sample in dataset.train)
    assert account.tokens == sum(len(sample.input_ids) for sample in dataset.train)
    for rejected in account.rejections.values():
        assert rejected.where == ("x.jsonl:1",) and rejected.tokens >= 8
    if account.rows_truncated:
        assert account.truncated_where == ("x.jsonl:1",)
    if account.rows_split:
        assert account.split_where == ("x.jsonl:1",) and [sample.line for sample in dataset.train] == [1, 1, 2]


def test_split_pieces_lose_nothing_but_their_first_prediction(tmp_path: Path) -> None:
    text = "the quick brown fox " * 20
    path = write(tmp_path / "x.jsonl", lines({"text": text}))
    tokenizer = byte_tokenizer(bos=True)
    whole, parts = load("text", path, tokenizer), load("text", path, tokenizer, max_length=7)
    ids = [token for sample in parts.train for token in sample.input_ids]
    assert ids == list(whole.train[0].input_ids)[: len(ids)]
    assert parts.account.tokens + parts.account.tokens_truncated == whole.account.tokens
    assert parts.account.loss_tokens == parts.account.tokens - parts.account.samples


REFUSED: list[tuple[str, dict[str, object], str]] = [
    (
        "text",
        {"overlong": "refuse", "max_length": 5},
        "x.jsonl:1: 10 tokens, but the limit is 5; raise data.max_length",
    ),
    ("text", {"max_length": 513}, "data.max_length is 513, but the model takes 512 tokens; write at most 512"),
    ("text", {"max_length": 1}, "data.max_length is 1, too short for any row; write at least 2"),
    ("sft", {"overlong": "drop", "max_length": 2}, "nothing to use; 2 rows read: 2 overlong (x.jsonl:1: 7 tokens, but"),
]


@pytest.mark.parametrize(("task", "data", "says"), REFUSED, ids=str)
def test_limits_that_are_refused(task: str, data: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(task, write(tmp_path / "x.jsonl", LONG[task]), **data)
    assert says in str(caught.value)


def test_the_own_limit_is_the_smaller_of_model_and_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", LONG["text"])
    assert load("text", path, byte_tokenizer(max_length=5)).account.max_length_tokens == 5
    assert load("text", path, byte_tokenizer(max_length=5), positions=4).account.max_length_tokens == 4
    assert load("text", path, byte_tokenizer(max_length=5), max_length=8).account.max_length_tokens == 8


LABELS: list[tuple[list[object], tuple[str, ...]]] = [
    (["b", "a", "b"], ("a", "b")),
    ([10, 9, 1], ("1", "9", "10")),
    ([10, "9", "x"], ("10", "9", "x")),
    ([True, False], ("false", "true")),
    ([-1, 1, 0], ("-1", "0", "1")),
    ([10**40, 2], ("2", "1" + "0" * 40)),
]


@pytest.mark.parametrize(("labels", "names"), LABELS, ids=str)
def test_label_names(labels: list[object], names: tuple[str, ...], tmp_path: Path) -> None:
    rows = [(f"row {number}", label) for number, label in enumerate(labels)]
    dataset = load("classify", write(tmp_path / "x.jsonl", labelled(*rows)))
    assert dataset.labels == names
    wanted = [str(label).lower() if isinstance(label, bool) else str(label) for label in labels]
    assert [names[sample.label or 0] for sample in dataset.train] == wanted


def test_labels_that_cannot_be_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", labelled(("one", "a"), ("two", "b")))
    held = write(tmp_path / "e.jsonl", labelled(("three", "a"), ("four", "c\nd")))
    with pytest.raises(InputError) as caught:
        load("classify", path, eval=[str(held)])
    assert str(caught.value).startswith(r"e.jsonl:2: the label 'c\nd' is not among the training labels ('a', 'b')")
    with pytest.raises(InputError, match="all 1 rows have the label 'a'; give at least two"):
        load("classify", path, max_rows=1)
    odd = write(tmp_path / "o.jsonl", labelled(("one", "Spam"), ("two", "spam "), ("one", "spam ")))
    assert load("classify", odd).account.notes == (
        "1 rows repeat an earlier text under another label (first o.jsonl:3)",
        "the labels 'Spam' and 'spam ' differ only by case or spaces",
    )


def test_duplicates_are_counted_and_dropped_on_wish(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", labelled(("one", "a"), ("two", "b"), ("one", "a"), ("one", "b"), ("one", "a")))
    kept = load("classify", path)
    assert (kept.account.duplicate_rows, kept.account.rows_trained) == (2, 5)
    assert kept.account.duplicate_where == ("x.jsonl:3", "x.jsonl:5")
    dropped = load("classify", path, duplicates="drop")
    assert (dropped.account.duplicate_rows, dropped.account.rows_trained) == (0, 3)
    assert dropped.account.rejections["duplicate"].where == ("x.jsonl:3", "x.jsonl:5")
    assert dropped.account.rejections["duplicate"].tokens == 6 and adds_up(dropped)


def test_evaluation_rows_seen_in_training_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", labelled(("one", "a"), ("two", "b")))
    held = write(tmp_path / "e.jsonl", labelled(("three", "a"), ("two", "a"), ("one", "a")))
    dataset = load("classify", path, eval=[str(held)])
    account = dataset.eval_account
    assert (account.rows_in, account.rows_held_out, account.overlap_rows) == (3, 3, 2)
    assert account.overlap_where == ("e.jsonl:2", "e.jsonl:3") and dataset.account.overlap_rows == 0
    clean = write(tmp_path / "c.jsonl", labelled(("three", "a")))
    assert load("classify", path, eval=[str(clean)]).eval_account.overlap_rows == 0


def test_bad_evaluation_rows_follow_the_same_rule(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", labelled(("one", "a"), ("two", "b")))
    held = write(tmp_path / "e.jsonl", labelled(("three", "a"), ("", "a")))
    with pytest.raises(InputError, match=r"^e\.jsonl:2: 'text' is empty"):
        load("classify", path, eval=[str(held)])
    dataset = load("classify", path, eval=[str(held)], bad_rows="drop")
    assert dataset.eval_account.rejections["empty"].rows == 1 and dataset.account.rows_rejected == 0


def many(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"text": f"row {number}"} for number in range(start, start + count)]


def texts(dataset: Dataset) -> tuple[set[str], set[str]]:
    tokenizer = byte_tokenizer()
    train, held = (
        {tokenizer.decode(sample.input_ids, skip_special_tokens=True) for sample in samples}
        for samples in (dataset.train, dataset.evaluation)
    )
    return train, held


def test_held_out_rows_stay_when_rows_are_added(tmp_path: Path) -> None:
    before = load("text", write(tmp_path / "a.jsonl", lines(*many(400))), eval_fraction=0.1)
    mixed = [*many(100, 1000), *reversed(many(400)), *many(50, 2000)]
    after = load("text", write(tmp_path / "b.jsonl", lines(*mixed)), eval_fraction=0.1)
    train, held = texts(before)
    more_train, more_held = texts(after)
    assert train <= more_train and held <= more_held and not more_train & more_held
    assert 20 <= len(held) <= 60, "a tenth of 400, give or take three deviations"
    assert before.account.rows_held_out == before.eval_account.rows_held_out == len(held)
    assert adds_up(before) and adds_up(after) and before.eval_account.tokens > 0


def test_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    rows = many(100) * 3
    dataset = load("text", write(tmp_path / "x.jsonl", lines(*rows)), eval_fraction=0.3)
    train, held = texts(dataset)
    assert not train & held and dataset.eval_account.overlap_rows == 0
    assert len(dataset.evaluation) == 3 * len(held)
    cut = load("text", write(tmp_path / "x.jsonl", lines(*rows)), eval_fraction=0.3, max_length=6, overlong="truncate")
    assert cut.eval_account.overlap_rows == 0, "rows alike only after truncation stay together too"


def test_few_rows_still_give_both_sides(tmp_path: Path) -> None:
    two = load("text", write(tmp_path / "x.jsonl", lines(*many(2))), eval_fraction=0.05)
    assert (len(two.train), len(two.evaluation)) == (1, 1)
    most = load("text", write(tmp_path / "x.jsonl", lines(*many(2))), eval_fraction=0.999999)
    assert (len(most.train), len(most.evaluation)) == (1, 1)
    with pytest.raises(InputError, match="hold only 1 that differs, so none can be held out"):
        load("text", write(tmp_path / "x.jsonl", lines(*many(1) * 3)), eval_fraction=0.05)
    off = load("text", write(tmp_path / "x.jsonl", lines(*many(1))))
    assert off.evaluation == () and off.eval_account == DataAccount(max_length_tokens=512)


def test_max_rows_says_so(tmp_path: Path) -> None:
    dataset = load("text", write(tmp_path / "x.jsonl", lines(*many(10))), max_rows=4)
    assert dataset.account.rows_in == len(dataset.train) == 4
    assert dataset.account.notes == ("only the first 4 rows were read (data.max_rows)",)
    assert load("text", write(tmp_path / "x.jsonl", lines(*many(4))), max_rows=4).account.notes == ()


def test_notes_name_what_was_left_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + lines({"text": "x", "id": 1, "tex\nt": 2}).encode())
    assert load("text", path).account.notes == (
        "x.jsonl begins with a byte order mark, which was left out",
        r"x.jsonl: columns not used: 'id', 'tex\nt'",
    )


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "question,intent\nhow,a\nwhy,b\n")
    dataset = load("classify", path, columns={"text": "question", "label": "intent"})
    assert dataset.labels == ("a", "b") and dataset.account.notes == ()


def test_several_files_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", lines(*many(2)))
    second = write(tmp_path / "b.csv", "text\nrow 5\n")
    dataset = load_dataset(make_recipe("text", first, second), byte_tokenizer(), 512)
    assert [sample.where for sample in dataset.train] == ["a.jsonl:1", "a.jsonl:2", "b.csv:2"]


def test_a_token_the_model_does_not_know(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    dataset = load("text", write(tmp_path / "x.jsonl", lines({"text": "ab"}, {"text": "zz"})), tokenizer)
    highest = max(dataset.train[1].input_ids)
    check_vocabulary(dataset.train, tokenizer, highest + 1, "some/model")
    with pytest.raises(InputError) as caught:
        check_vocabulary(dataset.train, tokenizer, highest, "some/model")
    assert f"x.jsonl:2: token 'z' has the id {highest}, but some/model knows only {highest} ids" in str(caught.value)


@pytest.mark.parametrize("change", [{"rows_in": 4}, {"rows_trained": 2}, {"rows_rejected": 2}, {"rejections": {}}])
def test_an_account_that_does_not_add_up_cannot_be_made(change: dict[str, object]) -> None:
    good = {"rows_in": 3, "rows_trained": 1, "rows_held_out": 1, "rows_rejected": 1}
    good["rejections"] = {"null": RejectedRows(rows=1)}  # type: ignore[assignment]
    account = DataAccount.model_validate(good)
    assert DataAccount.model_validate_json(account.model_dump_json()) == account
    with pytest.raises(ValueError, match="rows"):
        DataAccount.model_validate({**good, **change})


def test_ten_thousand_short_rows_are_tokenised_in_batches(
    shared_data: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one takes several times as long; how long a plan takes: bench/startup.py."""
    from tenfold.data import read_tokenizer
    from tenfold.data.tokenizer import Tokenizer

    batches: list[int] = []
    encode = Tokenizer.encode_batch

    def counted(self: Tokenizer, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        batches.append(len(texts))
        return encode(self, texts, add_special_tokens)

    monkeypatch.setattr(Tokenizer, "encode_batch", counted)
    monkeypatch.delattr(Tokenizer, "encode")
    recipe = make_recipe("classify", shared_data / "banking77" / "train.csv", columns={"label": "category"})
    dataset = load_dataset(recipe, read_tokenizer(minilm), 512)
    assert dataset.account.rows_in == 10_003 == sum(batches)
    assert len(dataset.labels) == 77
    assert len(batches) < 100


def test_a_dataset_survives_its_account_as_json(tmp_path: Path) -> None:
    dataset = load("text", write(tmp_path / "x.jsonl", lines(*many(3), {"text": None})), bad_rows="drop")
    assert json.loads(dataset.account.model_dump_json())["rejections"]["null"]["where"] == ["x.jsonl:4"]
