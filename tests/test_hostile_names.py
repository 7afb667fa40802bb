"""Names are names: whatever stands in a recipe's texts, nothing of it is run, and nothing escapes onto the terminal."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import pytest

from command_line import call, write_recipe

NAMES = [
    "$(touch MARKER)", "`touch MARKER`", "; touch MARKER;", "| touch MARKER", "&& touch MARKER", "\"; touch MARKER; \"",
    "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}", "%(touch MARKER)s", "${IFS}touch${IFS}MARKER",
    "!!python/object/apply:os.system ['touch MARKER']", "__import__('os').system('touch MARKER')", "=cmd|' /C touch MARKER'!A0",
    "--set", "-rf", "file:///etc/passwd", "../../../../etc/passwd", "/etc/passwd", "~root/.ssh/id_rsa", "\\\\host\\share",
    "con", "a" * 1024, "\u202egpj.exe", "<script>alert(1)</script>",
]  # fmt: skip
# ruff: noqa: E501 (a table)

PLACES = [
    lambda name: {"model": name},
    lambda name: {"data": {"train": name}},
    lambda name: {"data": {"columns": {"prompt": name}}},
    lambda name: {"machine": {"name": name}},
    lambda name: {"output": {"trackers": [name]}},
    lambda name: {"cuts": {"lora": {"targets": [name]}}},
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
def test_no_name_is_run_and_none_reaches_the_terminal(
    name: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    named = name.replace("MARKER", str(work / "marker"))
    before = {path.name for path in work.iterdir()}
    first = NAMES.index(name)
    for place in (PLACES[first % len(PLACES)], PLACES[(first + 2) % len(PLACES)]):
        write_recipe(work, place(named))
        outcome = call(("plan", "recipe.yaml"), monkeypatch, capfd)
        assert outcome.code == 2 and len(outcome.said) == 1, outcome.err
        assert "Traceback" not in outcome.err
        odd = {c for c in outcome.err + outcome.out if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"}
        assert not odd
    assert {path.name for path in work.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in NAMES if name[0] in "$`;|&" and "IFS" not in name])
def test_a_shell_would_run_it(name: str, tmp_path: Path) -> None:
    """The control: put into a command line, each of these leaves its mark."""
    marker = tmp_path / "marker"
    command = "echo x " + name.replace("MARKER", str(marker))
    subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    assert marker.exists()


def test_no_tag_is_run_by_a_whole_run(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tags = [name.replace("MARKER", "marker") for name in NAMES if "MARKER" in name]
    write_recipe(
        work, {"output": {"folder": "run", "tags": tags, "ledger": "ledger.sqlite"}, "train": {"max_steps": 1}}
    )
    for command in (
        ("train", "recipe.yaml"),
        ("report", "run/receipt.json", "--html", "page.html"),
        ("ledger", "--path", "ledger.sqlite", "--export", "csv"),
    ):
        assert call(command, monkeypatch, capfd).code == 0
    assert not list(work.rglob("marker"))


def test_folders_and_links_keep_to_what_they_name(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A link as output is not written through where it holds foreign files."""
    foreign = work / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    (work / "run").symlink_to(foreign)
    outcome = call(("train", "recipe.yaml"), monkeypatch, capfd)
    assert outcome.code == 2 and "holds no run: 'thesis.tex'" in outcome.said[0]
    assert {path.name for path in foreign.iterdir()} == {"thesis.tex"}


def test_a_preview_shows_what_a_row_says_and_does_not_obey_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from command_line import edit_json

    edit_json(work / "base" / "tokenizer.json", pre_tokenizer={"type": "WhitespaceSplit"})
    tokenizer = (work / "base" / "tokenizer.json").read_text()
    (work / "base" / "tokenizer.json").write_text(tokenizer.replace('"w7"', '"\\u001b]0;owned\\u0007\\u202e"'))
    (work / "train.jsonl").write_text('{"prompt": "\\u001b]0;owned\\u0007\\u202e", "completion": "w1"}\n' * 3)
    outcome = call(("preview", "recipe.yaml"), monkeypatch, capfd)
    assert outcome.code == 0, outcome.err
    assert not {"\x1b", "\x07", "\u202e"} & set(outcome.out)
