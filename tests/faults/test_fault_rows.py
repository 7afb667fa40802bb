"""Rows with a fault beside the same rows without: one question to both, answered with counts or with nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_runs import same_weights

import tenfold
from data_recipes import byte_tokenizer, lines, write
from data_recipes import make_recipe as data_recipe
from jobs import make_recipe, write_rows
from tenfold.checks import Paper, check_paper
from tenfold.checks.paper import EXAMPLES
from tenfold.data import first_examples, load_dataset
from tenfold.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
TEXTS = [{"text": f"The text of row {n}."} for n in range(12)]
ASKED = [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(12)]
OTHER = {"text": "Another text.", "prompt": "Who?", "completion": "Nobody."}
LONG_PROMPT = {"prompt": "p" * 80, "completion": "c"}
LONG_ROW = {"prompt": "p", "completion": "c" * 80}


@dataclass(frozen=True)
class Case:
    """Rows that are sound, the same with a fault, and what is to be said of that and not of those."""

    name: str
    task: str
    sound: str
    faulty: str
    says: tuple[str, ...]
    data: tuple[tuple[str, object], ...] = ()
    evaluated: tuple[dict[str, str], ...] = (OTHER,)
    sound_evaluated: tuple[dict[str, str], ...] | None = None


HELD_OUT = (("eval_fraction", 0.5),)
SHORT = (("max_length", 60),)
CUT = (*SHORT, ("overlong", "truncate"))
FAULTS = (
    Case("a line over the cap", "text", lines(*TEXTS), lines(TEXTS[0], {"text": "x" * 5000}, *TEXTS[1:]), ("1 line_too_long, first x.jsonl:2",), (("bad_rows", "drop"),)),
    Case("a line over the cap, refused", "text", lines(*TEXTS), lines(TEXTS[0], {"text": "x" * 5000}), ("x.jsonl:2: the line is longer than",)),
    Case("an empty file", "text", lines(*TEXTS), "", ("x.jsonl: nothing to use; it has no rows",)),
    Case("white space", "text", lines(*TEXTS), " \n\t\n\n", ("x.jsonl: nothing to use; it has no rows",)),
    Case("blank texts", "text", lines(*TEXTS), lines({"text": " "}, {"text": ""}), ("nothing to use; 2 rows read: 2 empty (x.jsonl:1",), (("bad_rows", "drop"),)),
    Case("one row, some of it to hold out", "text", lines(*TEXTS[:2]), lines(TEXTS[0]), ("so none can be held out",), HELD_OUT, ()),
    Case("a row twice", "text", lines(*TEXTS), lines(*TEXTS, TEXTS[3], TEXTS[3]), ("2 duplicates, first x.jsonl:13",)),
    Case("a row twice, dropped", "text", lines(*TEXTS), lines(*TEXTS, TEXTS[3]), ("1 duplicate, first x.jsonl:13",), (("duplicates", "drop"),)),
    Case("evaluated and trained on", "sft", lines(*ASKED), lines(*ASKED), ("overlap: 1 of 2 (50 %) evaluation rows are also training rows, first eval.jsonl:2",), (), (OTHER, ASKED[5]), (OTHER,)),
    Case("a row without anything to learn", "sft", lines(*ASKED), lines(*ASKED, LONG_PROMPT), ("1 no_loss_tokens, first x.jsonl:13", "1 of 13 (7.69 %) rows hold nothing to learn"), CUT),
    Case("no row with anything to learn", "sft", lines(*ASKED), lines(LONG_PROMPT), ("nothing to use; 1 rows read: 1 no_loss_tokens (x.jsonl:1",), CUT),
    Case("a row over the limit, dropped", "sft", lines(*ASKED), lines(*ASKED, LONG_ROW), ("1 overlong, first x.jsonl:13", "1 of 13 (7.69 %) rows left out as too long"), SHORT),
    Case("a row over the limit, cut", "sft", lines(*ASKED), lines(*ASKED, LONG_ROW), ("1 cut, 22 tokens, first x.jsonl:13", "rows cut, 22 tokens"), CUT),
    Case("a row over the limit, refused", "sft", lines(*ASKED), lines(*ASKED, LONG_ROW), ("x.jsonl:13:",), (*SHORT, ("overlong", "refuse"))),
    Case("a text over the limit, split", "text", lines(*TEXTS), lines(*TEXTS, {"text": "t" * 100}), ("1 split, first x.jsonl:13",), SHORT),
)  # fmt: skip
# ruff: noqa: E501 (a case of a table is one line)


def said_of(folder: Path, case: Case, content: str, evaluated: tuple[dict[str, str], ...]) -> list[str]:
    """All that is said of rows: a refusal, or what was lost or is doubtful, in counts and with places."""
    more: dict[str, Any] = dict(case.data)
    if evaluated:
        more["eval"] = [str(write(folder / "eval.jsonl", lines(*evaluated)))]
    recipe = data_recipe(case.task, write(folder / "x.jsonl", content), **more)
    tokenizer = byte_tokenizer()
    try:
        dataset = load_dataset(recipe, tokenizer, 512)
    except InputError as error:
        return [str(error)]
    account = dataset.account
    assert account.rows_in == account.rows_trained + account.rows_held_out + account.rows_rejected
    said = [f"{found.rows} {reason}, first {found.where[0]}" for reason, found in account.rejections.items()]
    if account.duplicate_rows:
        said.append(f"{account.duplicate_rows} duplicates, first {account.duplicate_where[0]}")
    if account.rows_truncated:
        said.append(
            f"{account.rows_truncated} cut, {account.tokens_truncated} tokens, first {account.truncated_where[0]}"
        )
    if account.rows_split:
        said.append(f"{account.rows_split} split, first {account.split_where[0]}")
    paper = Paper(case.task, dataset, tokenizer, 262, "tiny", first_examples(recipe, EXAMPLES))  # type: ignore[arg-type]
    return said + [f"{finding.check}: {finding.text}" for finding in check_paper(paper) if finding.verdict != "ok"]


@pytest.fixture(autouse=True)
def _low_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.data.lines.LINE_CAP_BYTES", 4096)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_a_fault_is_told_in_counts(case: Case, tmp_path: Path) -> None:
    said = said_of(tmp_path, case, case.faulty, case.evaluated)
    assert all(any(part in line for line in said) for part in case.says), said
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_of_the_same_rows_without_it_nothing_is_told(case: Case, tmp_path: Path) -> None:
    """The control."""
    evaluated = case.evaluated if case.sound_evaluated is None else case.sound_evaluated
    assert said_of(tmp_path, case, case.sound, evaluated) == []


@pytest.mark.parametrize(
    "content", ["", "\n \n", '{"prompt": "w1", "completion": "w2"}\n'], ids=["empty", "blank", "one"]
)
def test_a_plan_refuses_what_it_cannot_divide(content: str, tmp_path: Path) -> None:
    """Before anything is written; one row is enough where others are named to evaluate on."""
    recipe = make_recipe(tmp_path)
    (tmp_path / "train.jsonl").write_text(content)
    if content.strip():
        assert tenfold.plan(recipe).prediction.steps == 2
        del recipe["data"]["eval"]
    with pytest.raises(
        InputError, match=r"train\.jsonl: nothing to use; it has no rows|1 training rows .* none can be held out"
    ) as caught:
        tenfold.plan(recipe)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_fewer_rows_than_a_batch_are_one_smaller_step(tmp_path: Path) -> None:
    """An epoch of five rows is one step of them, as with a batch of five; the control: not as with one of four."""
    receipts = {}
    for batch_size in (32, 5, 4):
        train = {"batch_size": batch_size, "epochs": 3, "max_steps": None, "log_every_steps": 1}
        recipe = make_recipe(tmp_path, train=train, output={"folder": str(tmp_path / str(batch_size))})
        write_rows(tmp_path / "train.jsonl", "sft", 5)
        plan = tenfold.plan(recipe)
        receipts[batch_size] = tenfold.train(plan)
        assert plan.prediction.steps == receipts[batch_size].measured("steps") == (6 if batch_size == 4 else 3)
        assert receipts[batch_size].data["rows_trained"] == 5
    assert same_weights(tmp_path, "32", "5")
    assert not same_weights(tmp_path, "32", "4")
