"""`tenfold plan` from the command line: what it takes, what it leaves, and one line for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from command_line import Outcome, call
from tenfold.planner import Plan


@pytest.fixture
def tenfold(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """The command line in this process; it must end with the code that is named."""

    def run(*arguments: str, code: int = 0) -> Outcome:
        outcome = call(arguments, monkeypatch, capfd)
        assert outcome.code == code, outcome.err
        return outcome

    return run


def test_a_model_and_a_data_file_will_do(work: Path, tenfold) -> None:
    shown = json.loads(tenfold("plan", "base", "train.jsonl", "--json").out)
    assert (shown["recipe"]["task"], shown["recipe"]["model"]["name"]) == ("sft", "base")
    labels = json.loads(tenfold("plan", "base-bert", "labels.jsonl", "--json").out)
    assert labels["recipe"]["task"] == "classify"


def test_two_data_files_are_both_read(work: Path, tenfold) -> None:
    one, both = (
        json.loads(tenfold("plan", "base", *files, "--json").out)["workload"]["rows"]
        for files in (["train.jsonl"], ["train.jsonl", "eval.jsonl"])
    )
    assert both > one


def test_the_price_on_the_command_line_comes_first(work: Path, tenfold) -> None:
    dear = json.loads(tenfold("plan", "recipe.yaml", "--price", "36", "--json").out)
    assert dear["machine"]["usd_per_hour"] == 36.0
    rented = tenfold("plan", "recipe.yaml", "--set", "machine.name=H200 SXM", "--price", "2", "--json")
    assert json.loads(rented.out)["machine"]["usd_per_hour"] == 2.0


def test_plan_page_and_task_file_are_written(work: Path, tenfold) -> None:
    outcome = tenfold(
        "plan", "recipe.yaml", "--set", "machine={name: L4}", "--out", "p.json", "--out", "p.html", "--emit", "skypilot"
    )
    assert Plan.read(work / "p.json").machine.name == "L4"
    assert (work / "p.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "accelerators: L4:1" in (work / "p.sky.yaml").read_text()
    assert Plan.read(work / "p.sky.json").recipe.data.train[0].startswith("inputs/")
    assert outcome.err.splitlines() == ["wrote p.sky.json", "wrote p.sky.yaml"]


def test_another_tools_file_is_planned_and_what_was_ignored_is_said(work: Path, tenfold) -> None:
    (work / "config.yml").write_text(
        "base_model: base\nadapter: lora\nlora_r: 4\nflash_optim: true\n"
        "datasets: [{path: rows.jsonl, type: completion}]\n"
    )
    (work / "rows.jsonl").write_text("".join(f'{{"text": "w1 w2 w{n}"}}\n' for n in range(40)))
    outcome = tenfold("plan", "--from-axolotl", "config.yml")
    assert "config.yml:4: flash_optim: has no counterpart in tenfold; ignored" in outcome.out.replace("\n", " ")
    plan = json.loads(tenfold("plan", "--from-axolotl", "config.yml", "--json").out)
    assert plan["recipe"]["cuts"]["lora"]["rank"] == 4
    assert [note for note in plan["notes"] if "flash_optim" in note]


SPOT = "machine={name: L40, tier: spot, usd_per_hour: null}"
FREE = "machine={name: local, usd_per_hour: null}"
FRESH = "machine={name: V100 16GB, stale_prices: refuse, usd_per_hour: null}"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["base"], 2, "is not a file; name a recipe"),
        (["nowhere/model/here", "train.jsonl"], 2, "no such folder; check the spelling"),
        (["base", "none.jsonl"], 2, "no file none.jsonl"),
        (["recipe.yaml", "train.jsonl"], 2, "a recipe names its own data"),
        (["recipe.yaml", "--price", "0"], 2, "--price: found 0, expected dollars per hour above 0"),
        (["recipe.yaml", "--out", "plan.txt"], 2, "write a name ending in .json"),
        (["recipe.yaml", "--emit", "terraform"], 2, "--emit: found 'terraform', expected skypilot"),
        (["recipe.yaml", "--emit", "skypilot"], 2, "allow machines to rent, e.g. --set machine.name=auto"),
        (["recipe.yaml", "--from-axolotl", "--from-trl"], 2, "give one of these options, and one file"),
        (["recipe.yaml", "--set", "machine.name=H300"], 2, "which the catalogue does not know"),
        (
            ["recipe.yaml", "--set", SPOT],
            2,
            "no spot price is known for L40",
        ),
        (
            ["recipe.yaml", "--set", FREE, "--set", "budget.usd=1"],
            2,
            "this machine has no price",
        ),
        (["recipe.yaml", "--set", "budget.usd=1e-6", "--price", "50"], 3, "budget.usd: "),
        (
            ["recipe.yaml", "--set", FRESH],
            2,
            "give --price",
        ),
        (["Qwen/Qwen3-0.6B", "train.jsonl"], 2, "not in the Hugging Face cache, and HF_HUB_OFFLINE is set"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], code: int, message: str, work: Path, tenfold
) -> None:
    before = sorted(path.name for path in work.iterdir())
    outcome = tenfold("plan", *arguments, code=code)
    assert len(outcome.said) == 1
    assert message in outcome.said[0]
    assert outcome.out == ""
    assert sorted(path.name for path in work.iterdir()) == before


def test_data_without_known_columns_is_named_with_what_is_read(work: Path, tenfold) -> None:
    (work / "odd.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    said = tenfold("plan", "base", "odd.jsonl", code=2).said
    assert len(said) == 1
    assert re.search(r"found the columns 'question', 'answer'; tenfold reads messages", said[0])
