"""Mutated files of rows, and what must be true of whatever comes of them: above all, that no row is lost."""

# ruff: noqa: E501 (tables of what is put in)

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from fuzz_recipes import TIMES, VALUES, mutated_bytes
from tenfold.data import DataAccount, Dataset, Tokenizer, load_dataset
from tenfold.errors import InputError
from tenfold.recipe import Recipe, recipe_from_dict

ROWS = 12
LONGEST_TOKENS = 96
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TOKENS = (
    b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xe2\x80\xa8", b"\xc2\x85",
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"Infinity", b"-0", b"1e999", b"9" * 50, b"\t", b" ",
    b"'", b"true", b'"text"', b"\x1b[2J",
)  # fmt: skip

SEEDS: tuple[tuple[str, str], ...] = (
    ("classify", ".jsonl"), ("classify", ".csv"), ("classify", ".json"), ("sft", ".jsonl"), ("sft", ".json"),
    ("chat", ".jsonl"), ("text", ".jsonl"), ("text", ".csv"),
)  # fmt: skip


def tokenizer() -> Tokenizer:
    """One token for each byte."""
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    return Tokenizer("bytes", backend, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, CHATML)


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Sound rows; some repeat, and some are longer than the limit."""
    texts = [f"row {number % 10} says é and 漢 " + "x" * (8 * number) for number in range(ROWS)]
    if kind == "classify":
        return [{"text": text, "label": "abc"[number % 3]} for number, text in enumerate(texts)]
    if kind == "sft":
        return [{"prompt": f"q{number % 9}?", "completion": text} for number, text in enumerate(texts)]
    if kind == "chat":
        talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
        return [{"messages": [*talk, *talk][: 2 + 2 * (number % 2)], "id": number} for number in range(ROWS)]
    return [{"text": text} for text in texts]


def written(rows: list[Any], suffix: str) -> bytes:
    """The rows as a file of this kind; what is no row of a table stands in its first column."""
    if suffix == ".json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
    if suffix == ".csv":
        columns = list(rows[0]) if rows and isinstance(rows[0], dict) else ["text"]
        values = [[str(row.get(c, "")) for c in columns] if isinstance(row, dict) else [str(row)] for row in rows]
        lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in [columns, *values]]
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def mutate(draw: random.Random) -> tuple[str, str, str, bytes]:
    """The level of a mutation, the kind of rows, the suffix of the file, and its bytes."""
    level = draw.choice(("byte", "token", "key", "value", "structure"))
    kind, suffix = draw.choice(SEEDS)
    rows: list[Any] = rows_of(kind)
    if level in ("byte", "token"):
        data = written(rows, suffix)
        if level == "byte":
            return level, kind, suffix, mutated_bytes(data, draw)
        for _ in range(draw.choice(TIMES)):
            at = draw.randrange(len(data) + 1)
            data = data[:at] + draw.choice(TOKENS) + data[draw.choice((at, at + 1, at + 5)) :]
        return level, kind, suffix, data
    for _ in range(draw.choice(TIMES)):
        number = draw.randrange(len(rows))
        {"key": _other_key, "value": _other_value, "structure": _other_structure}[level](rows, number, draw)
    return level, kind, suffix, written(rows, suffix)


def _other_key(rows: list[Any], number: int, draw: random.Random) -> None:
    row = rows[number]
    if isinstance(row, dict) and row:
        key = draw.choice(list(row))
        row[draw.choice(("", key[::-1], key.upper(), key + "s", "messages", "label", "a\nb"))] = row.pop(key)


def _other_value(rows: list[Any], number: int, draw: random.Random) -> None:
    row = rows[number]
    while isinstance(row, dict | list) and row:
        key = draw.choice(list(row)) if isinstance(row, dict) else draw.randrange(len(row))
        if not isinstance(row[key], dict | list) or draw.random() < 0.3:
            row[key] = draw.choice(VALUES)
            return
        row = row[key]


def _other_structure(rows: list[Any], number: int, draw: random.Random) -> None:
    match draw.choice(("wrap", "list", "twice", "blank", "scalar", "deep", "swap", "drop")):
        case "wrap":
            rows[number] = {"data": rows[number]}
        case "list":
            rows[number] = [rows[number]]
        case "twice":
            rows.insert(draw.randrange(len(rows)), rows[number])
        case "blank":
            rows[number] = {}
        case "scalar":
            rows[number] = draw.choice(VALUES)
        case "deep":
            rows[number] = {"text": json.loads("[" * 80 + "]" * 80)}
        case "swap":
            rows[number], rows[0] = rows[0], rows[number]
        case _ if len(rows) > 1:
            del rows[number]
        case _:
            pass


def recipe_for(path: Path, kind: str, draw: random.Random) -> Recipe:
    """Settings that decide what becomes of rows."""
    data: dict[str, Any] = {
        "train": [str(path)],
        "bad_rows": draw.choice(("drop", "drop", "drop", "refuse")),
        "duplicates": draw.choice(("keep", "drop")),
        "eval_fraction": draw.choice((0, 0.2)),
        "max_length": LONGEST_TOKENS,
    }
    task = "sft" if kind == "chat" else kind
    data["overlong"] = draw.choice(("truncate", "drop", *(("split",) if task == "text" else ())))
    return recipe_from_dict({"model": "bytes", "task": task, "data": data})


def check(
    content: bytes, suffix: str, kind: str, used: Tokenizer, folder: Path, draw: random.Random
) -> tuple[str, str]:
    """What became of a file of rows: read or refused; or else what is wrong with that, and the details."""
    path = folder / f"rows{suffix}"
    path.write_bytes(content)
    try:
        dataset = load_dataset(recipe_for(path, kind, draw), used, 10_000)
    except InputError as error:
        text = str(error)
        if not text.strip() or not text.isprintable() or len(text) > 2000:
            return "bad_message", repr(text)[:300]
        return "refused", ""
    except Exception as error:
        return "traceback", repr(error)[:300]
    found = lost_rows(dataset, content if suffix == ".jsonl" else None)
    return ("unaccounted", found) if found else ("read", "")


def lost_rows(dataset: Dataset, lines: bytes | None) -> str:
    """Where the account does not hold: by its own sums, and for JSON lines by the lines of the file."""
    account = dataset.account
    accounted = account.rows_trained + account.rows_held_out + account.rows_rejected
    if account.rows_in != accounted or account.rows_held_out != dataset.eval_account.rows_held_out:
        return f"{account.rows_in} rows in, {accounted} accounted for"
    trained = {sample.line for sample in dataset.train}
    held_out = {sample.line for sample in dataset.evaluation}
    rejected = rejected_lines(account)
    if len(trained) != account.rows_trained or len(held_out) != account.rows_held_out:
        return f"{len(trained)} lines in samples, {account.rows_trained} rows trained"
    if trained & held_out or (trained | held_out) & set(rejected) or len(rejected) != account.rows_rejected:
        return "a row is on two sides"
    if lines is None:
        return ""
    stripped = lines.removeprefix(b"\xef\xbb\xbf")
    there = {number for number, line in enumerate(stripped.split(b"\n"), 1) if line.strip()}
    missing = there ^ (trained | held_out | set(rejected))
    return f"lines {sorted(missing)[:5]} are in the file or in the account, not in both" if missing else ""


def rejected_lines(account: DataAccount) -> list[int]:
    """Every rejected line, from ranges such as "3-5,9"."""
    found: list[int] = []
    for rejection in account.rejections.values():
        for ranges in rejection.lines.values():
            for part in ranges.split(","):
                first, _, last = part.partition("-")
                found += range(int(first), int(last or first) + 1)
    return found
