"""Bad data: by default one line that names file and line; with bad_rows: drop a counted rejection; never silence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data_recipes import CHATML, byte_tokenizer, lines, load, write
from tenfold.errors import InputError


class Bad(NamedTuple):
    """One bad row between two good ones."""

    row: bytes | str | dict[str, object]
    reason: str
    says: str


GOOD: dict[str, list[dict[str, object]]] = {
    "text": [{"text": "first"}, {"text": "last"}],
    "classify": [{"text": "first", "label": "a"}, {"text": "last", "label": "b"}],
    "sft": [{"prompt": "first", "completion": "x"}, {"messages": [{"role": "assistant", "content": "last"}]}],
}


def chat(*messages: object) -> dict[str, object]:
    return {"messages": list(messages)}


USER, ANSWER = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}

BAD: dict[str, tuple[str, Bad]] = {
    "not JSON": ("text", Bad("hello", "malformed", "malformed JSON at column 1")),
    "trailing garbage": ("text", Bad('{"text": "x"} and more', "malformed", "malformed JSON at column 15: Extra data")),
    "two rows on a line": ("text", Bad('{"text": "x"}{"text": "y"}', "malformed", "Extra data")),
    "half a row": ("text", Bad('{"text": "x', "malformed", "malformed JSON")),
    "byte order mark in the middle": ("text", Bad('\ufeff{"text": "x"}', "malformed", "malformed JSON")),
    "single quotes": ("text", Bad("{'text': 'x'}", "malformed", "malformed JSON at column 2")),
    "raw NUL": ("text", Bad(b'{"text": "a\0b"}', "malformed", "malformed JSON")),
    "5,000 digits": ("text", Bad('{"text": "x", "n": ' + "1" * 5000 + "}", "malformed", "malformed JSON")),
    "brackets nested 100,000 deep": ("text", Bad("[" * 100_000, "malformed", "malformed JSON")),
    "a list": ("text", Bad('["x"]', "not_an_object", "a list, not an object of columns; a JSON array belongs in")),
    "a string": ("text", Bad('"x"', "not_an_object", "a string, not an object")),
    "a null": ("text", Bad("null", "not_an_object", "null, not an object")),
    "key twice": ("text", Bad('{"text": "x", "text": "y"}', "duplicate_key", "the key 'text' stands twice")),
    "Latin-1": ("text", Bad('{"text": "café"}'.encode("latin-1"), "not_utf8", "byte 14 (0xe9) is not UTF-8")),
    "surrogate as bytes": ("text", Bad(b'{"text": "\xed\xa0\x80"}', "not_utf8", "a lone surrogate")),
    "surrogate as escape": ("text", Bad(r'{"text": "a \ud800 b"}', "lone_surrogate", r"(\ud800 alone)")),
    "NUL as escape": ("text", Bad(r'{"text": "a \u0000 b"}', "nul_character", "holds a NUL character")),
    "null text": ("text", Bad({"text": None}, "null", "'text' is null")),
    "number for text": ("text", Bad({"text": 7}, "wrong_type", "'text' is a number (7), not a string")),
    "list for text": ("text", Bad({"text": ["a", "b"]}, "wrong_type", "'text' is a list")),
    "true for text": ("text", Bad({"text": True}, "wrong_type", "'text' is a boolean (True)")),
    "empty text": ("text", Bad({"text": ""}, "empty", "'text' is empty")),
    "blank text": ("text", Bad({"text": " \n\t "}, "empty", "'text' is empty")),
    "no text column": (
        "text", Bad({"Texts": "x", "id": 1}, "missing_column",
                    "no column 'text'; found 'Texts', 'id'; set data.columns.text: Texts"),
    ),
    "no column at all": ("text", Bad({}, "missing_column", "no column 'text'; found none; set data.columns")),
    "newline in a column name": ("text", Bad({"te\nxt": "x"}, "missing_column", r"found 'te\nxt'")),
    "no label": ("classify", Bad({"text": "x", "labels": "a"}, "missing_column", "set data.columns.label: labels")),
    "null label": ("classify", Bad({"text": "x", "label": None}, "null", "'label' is null")),
    "NaN label": ("classify", Bad('{"text": "x", "label": NaN}', "not_a_number", "'label' is NaN")),
    "fraction as label": ("classify", Bad({"text": "x", "label": 1.0}, "wrong_type", "'label' is the fraction 1.0")),
    "list as label": ("classify", Bad({"text": "x", "label": ["a"]}, "wrong_type", "'label' is a list")),
    "empty label": ("classify", Bad({"text": "x", "label": " "}, "empty", "'label' is empty")),
    "label of 80 digits": ("classify", Bad({"text": "x", "label": 10**80}, "wrong_type", "more than 60 digits")),
    "null prompt": ("sft", Bad({"prompt": None, "completion": "x"}, "null", "'prompt' is null")),
    "empty completion": ("sft", Bad({"prompt": "x", "completion": ""}, "empty", "'completion' is empty")),
    "prompt alone": ("sft", Bad({"prompt": "x"}, "missing_column", "no column 'completion'; found 'prompt'")),
    "neither form": (
        "sft", Bad({"question": "x", "answer": "y"}, "missing_column", "found 'question', 'answer'; set data.columns."),
    ),
    "prompt as messages, completion as string": (
        "sft", Bad({"prompt": [USER], "completion": "x"}, "wrong_type", "'prompt' is a list"),
    ),
    "messages as string": ("sft", Bad({"messages": "hello"}, "wrong_type", "'messages' is a string, not a list")),
    "no messages": ("sft", Bad({"messages": []}, "empty", "'messages' is an empty list")),
    "null messages": ("sft", Bad({"messages": None}, "null", "'messages' is null")),
    "a message that is no object": ("sft", Bad(chat("hello"), "bad_message", "messages[0] is a string")),
    "a message without role": ("sft", Bad(chat({"content": "x"}), "bad_message", "messages[0] has no role")),
    "ShareGPT": (
        "sft", Bad(chat({"from": "human", "value": "x"}), "bad_message", "has no role but 'from', 'value'; write role"),
    ),
    "role misspelt": ("sft", Bad(chat({"role": "asistant", "content": "x"}), "bad_message", "'asistant'; the roles")),
    "role in capitals": ("sft", Bad(chat({"role": "Assistant", "content": "x"}), "bad_message", "write 'assistant'")),
    "role by another name": ("sft", Bad(chat({"role": "gpt", "content": "x"}), "bad_message", "write 'assistant'")),
    "null content": ("sft", Bad(chat(USER, {"role": "assistant", "content": None}), "bad_message", "has no content")),
    "number as content": ("sft", Bad(chat({"role": "user", "content": 3}, ANSWER), "bad_message", "is a number")),
    "empty answer": ("sft", Bad(chat(USER, {"role": "assistant", "content": ""}), "empty", "messages[1] is empty")),
    "no answer": ("sft", Bad(chat(USER), "no_assistant", "no message of the role 'assistant'")),
    "surrogate in an answer": (
        "sft", Bad(r'{"messages": [{"role": "assistant", "content": "\udfff"}]}', "lone_surrogate", "udfff alone"),
    ),
    "nested 300 deep": (
        "sft", Bad({"messages": [{**ANSWER, "more": json.loads("[" * 300 + "]" * 300)}]}, "bad_message", "than 64"),
    ),
    "tools as string": ("sft", Bad({**chat(USER, ANSWER), "tools": "f"}, "wrong_type", "'tools' is a string")),
}  # fmt: skip


def with_neighbours(task: str, row: bytes | str | dict[str, object]) -> bytes:
    """The bad row on line 2 of 3."""
    first, last = GOOD[task]
    middle = row if isinstance(row, bytes) else lines(row).rstrip("\n").encode()
    return lines(first).encode() + middle + b"\n" + lines(last).encode()


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_row_is_refused_by_file_and_line(case: str, tmp_path: Path) -> None:
    task, bad = BAD[case]
    path = write(tmp_path / "x.jsonl", with_neighbours(task, bad.row))
    with pytest.raises(InputError) as caught:
        load(task, path, byte_tokenizer(CHATML))
    message = str(caught.value)
    assert message.startswith("x.jsonl:2: ") and bad.says in message and "\n" not in message and len(message) < 500
    assert "data.bad_rows: drop" in message


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_row_is_counted_when_dropped(case: str, tmp_path: Path) -> None:
    task, bad = BAD[case]
    path = write(tmp_path / "x.jsonl", with_neighbours(task, bad.row))
    dataset = load(task, path, byte_tokenizer(CHATML), bad_rows="drop")
    account = dataset.account
    assert (account.rows_in, account.rows_trained, account.rows_rejected) == (3, 2, 1)
    assert list(account.rejections) == [bad.reason] and account.rejections[bad.reason].where == ("x.jsonl:2",)
    assert bad.says in account.rejections[bad.reason].example
    assert [sample.line for sample in dataset.train] == [1, 3]


@pytest.mark.parametrize("task", GOOD)
def test_the_good_neighbours_alone_pass(task: str, tmp_path: Path) -> None:
    """The control: without the bad row nothing is refused."""
    dataset = load(task, write(tmp_path / "x.jsonl", lines(*GOOD[task])), byte_tokenizer(CHATML))
    assert dataset.account.rows_rejected == 0 and len(dataset.train) == 2


CSV_BAD: dict[str, tuple[bytes, str, str]] = {
    "too few fields": (b"alone", "field_count", "1 fields under a header of 2"),
    "too many fields": (b"a,b,c", "field_count", "3 fields under a header of 2"),
    "Latin-1": ("caf\xe9,a".encode("latin-1"), "not_utf8", "a byte is not UTF-8"),
    "NUL": (b"a\0b,a", "nul_character", "NUL"),
    "empty text": (b",a", "empty", "'text' is empty"),
    "empty label": (b"x,", "empty", "'label' is empty"),
    "text behind a quote": (b'"x"y,a', "malformed", "malformed CSV"),
}


@pytest.mark.parametrize("case", CSV_BAD, ids=str)
def test_bad_csv_rows(case: str, tmp_path: Path) -> None:
    row, reason, says = CSV_BAD[case]
    path = write(tmp_path / "x.csv", b'text,label\n"two\nlines",a\n' + row + b"\nlast,b\n")
    with pytest.raises(InputError, match=r"^x\.csv:4: ") as caught:
        load("classify", path)
    assert says in str(caught.value)
    account = load("classify", path, bad_rows="drop").account
    assert (account.rows_in, account.rows_trained) == (3, 2) and account.rejections[reason].where == ("x.csv:4",)


FATAL: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("x.jsonl", b"", "x.jsonl: nothing to use; it has no rows"),
    "white space only": ("x.jsonl", b" \n\n\t\n", "it has no rows"),
    "byte order mark only": ("x.jsonl", b"\xef\xbb\xbf", "it has no rows"),
    "empty JSON file": ("x.json", b"", "x.json:1: found one JSON value (nothing)"),
    "empty array": ("x.json", b"[]", "it has no rows"),
    "empty CSV": ("x.csv", b"", "it has no rows"),
    "header only": ("x.csv", b"text,label\n", "it has no rows"),
    "UTF-16": ("x.jsonl", '{"text": "x"}'.encode("utf-16"), "x.jsonl:1: the file is UTF-16"),
    "UTF-16 without a mark": (
        "x.jsonl",
        '{"text": "x"}'.encode("utf-16-le"),
        "x.jsonl:1: the file is UTF-16 or binary",
    ),
    "UTF-32": ("x.csv", "text,label\nx,a\n".encode("utf-32"), "x.csv:1: the file is UTF-32"),
    "all rows bad": ("x.jsonl", b'{"txt": "x"}\n{"txt": "y"}\n', "2 rows read: 2 missing_column (x.jsonl:1: no column"),
    "JSON object of objects": ("x.json", b'{"a": {},\n"b": {}}', "x.json:1: found one JSON value ('a', 'b'), not rows"),
    "JSON number": ("x.json", b"7", "found one JSON value (a number)"),
    "JSON cut short": ("x.json", b'[{"text": "x"},\n{"text": "y"', "x.json:2: malformed JSON at column 13"),
    "JSON without a comma": ("x.json", b'[{"text": "x"}\n{"text": "y"}]', "x.json:2: malformed JSON at column 1"),
    "JSON with a comma too many": (
        "x.json",
        b'[{"text": "x"},\n]',
        "x.json:2: malformed JSON at column 1: Expecting value",
    ),
    "JSON and more": (
        "x.json",
        b'[{"text": "x"}]\n[{"text": "y"}]',
        "x.json:2: malformed JSON at column 1: Extra data",
    ),
    "JSON under data and more": ("x.json", b'{"data": [{"text": "x"}]}\n{"data": []}', "x.json:2: malformed JSON at"),
    "JSON in Latin-1": ("x.json", '[{"text": "x"},\n{"text": "caf\xe9"}]'.encode("latin-1"), "x.json:2: byte"),
    "quote never closed": ("x.csv", b'text,label\nx,a\n"y,b\nz,a\n', "x.csv:3: a quote opened here never closes"),
    "column twice": ("x.csv", b"text,text\nx,a\n", "x.csv:1: the column 'text' stands twice"),
    "Parquet that is none": ("x.parquet", b"hello", "x.parquet:1: unreadable Parquet"),
}


@pytest.mark.parametrize("bad_rows", ["refuse", "drop"])
@pytest.mark.parametrize("case", FATAL, ids=str)
def test_files_of_which_nothing_can_be_used(case: str, bad_rows: str, tmp_path: Path) -> None:
    name, content, says = FATAL[case]
    if case == "all rows bad" and bad_rows == "refuse":
        says = "x.jsonl:1: no column 'text'; found 'txt'; set data.columns.text: txt"
    with pytest.raises(InputError) as caught:
        load("text", write(tmp_path / name, content), bad_rows=bad_rows)
    assert says in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.jsonl", lines({"text": "x"}))

    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"x\.jsonl cannot be read: Permission denied"):
        load("text", path)


def test_no_row_is_lost_whatever_comes(tmp_path: Path) -> None:
    """500 rows, good and bad at random: the account adds up and knows every line."""
    draw = random.Random(0)
    cases = [bad for task, bad in BAD.values() if task != "sft"]
    rows: list[bytes] = []
    reasons: dict[str, list[int]] = {}
    for number in range(1, 501):
        if draw.random() < 0.3:
            bad = draw.choice(cases)
            rows.append(bad.row if isinstance(bad.row, bytes) else lines(bad.row).rstrip("\n").encode())
            reasons.setdefault(bad.reason, []).append(number)
        else:
            rows.append(json.dumps({"text": f"row {draw.randrange(300)}", "label": draw.choice("ab")}).encode())
    path = write(tmp_path / "x.jsonl", b"\n".join(rows))
    dataset = load("classify", path, bad_rows="drop", duplicates="drop", eval_fraction=0.2)
    account = dataset.account
    duplicates = account.rejections["duplicate"]
    found = {reason: bad.rows for reason, bad in account.rejections.items() if reason != "duplicate"}
    assert found == {reason: len(numbers) for reason, numbers in reasons.items()}
    assert (
        account.rows_in == 500 == account.rows_trained + account.rows_held_out + duplicates.rows + sum(found.values())
    )
    assert all(len(rejected.where) <= 20 for rejected in account.rejections.values())
    used = [sample.line for sample in (*dataset.train, *dataset.evaluation)]
    assert len(used) == len(set(used)) and not set(used) & {n for numbers in reasons.values() for n in numbers}
