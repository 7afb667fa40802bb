"""`tenfold check`, and the same checks at the start of `tenfold train`."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import tenfold
from command_line import BERT, call, tree, write_recipe
from damage import Change, both, put, wish
from jobs import make_recipe
from tenfold.checks.preflight import check_rig
from tenfold.errors import Preempted
from tenfold.receipt import Receipt
from tenfold.report import plain_lines, render_html
from tenfold.run.events import Event

CHECK, TRAIN = ("check", "recipe.yaml"), ("train", "recipe.yaml")


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this computer is; what there is no time for: tests/checks/test_rig_checks.py."""
    monkeypatch.setattr("tenfold.run.train.check_rig", lambda rig, rows, *_: check_rig(rig, rows, float("inf")))


ROWS = "".join(json.dumps({"prompt": f"w{n}", "completion": "w1 w2 w3"}) + "\n" for n in range(30))


def test_sound_runs_pass_and_nothing_is_left(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tree(work)
    outcome = call((*CHECK, "--json"), monkeypatch, capfd)
    found = json.loads(outcome.out)
    assert outcome.code == 0 and {finding["verdict"] for finding in found["findings"]} == {"ok"}
    assert len(found["findings"]) == 11 and "⟦" in found["example"] and found["seconds"] > 0
    assert tree(work) == before
    shown = call((*CHECK, "--set", "train.dtype=float32"), monkeypatch, capfd).out
    assert "ok  packing" in shown and "⟦" in shown and "11 checks in" in shown


REFUSED: list[tuple[Change, tuple[str, ...]]] = [
    (both(put("train.jsonl", ROWS), put("eval.jsonl", ROWS), wish({"data": {"max_length": 3, "overlong": "truncate"}})), ("check stop token: 0 of 30", "the model would never end an answer")),
    (put("train.jsonl", ROWS.replace("w1 w2 w3", "ä ö ü").replace('"w', '"ß')), ("check known text:", "use a model for this kind of text")),
]  # fmt: skip
# ruff: noqa: E501 (a case of a table is one line)


@pytest.mark.parametrize("command", [CHECK, TRAIN], ids=lambda command: command[0])
@pytest.mark.parametrize(("spoil", "says"), REFUSED, ids=["stop token", "known text"])
def test_nonsense_is_refused_before_weights_are_read(
    command: tuple[str, ...],
    spoil: Change,
    says: tuple[str, ...],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil(work)
    outcome = call(command, monkeypatch, capfd)
    assert outcome.code == 2 and len(outcome.said) == 1, outcome.err
    assert all(text in outcome.said[0] for text in says), outcome.said
    assert "weights loaded" not in outcome.err
    assert not (work / "run" / "receipt.json").exists() and not (work / "run" / "run.json").exists()


def test_other_machines_and_new_models_are_left_to_train(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for settings, says in (
        (("--set", "machine.name=T4"), "the plan is for T4"),
        (("--set", "cuts.warm_start={grow_layers: 1}"), "the changed model does not exist yet"),
    ):
        outcome = call((*CHECK, "--json", *settings), monkeypatch, capfd)
        assert outcome.code == 0, outcome.err
        verdicts = {finding["check"]: finding for finding in json.loads(outcome.out)["findings"]}
        for name in ("packing", "accumulation", "export"):
            assert verdicts[name]["verdict"] == "left_out" and says in verdicts[name]["text"]


def test_what_is_doubtful_is_said_and_stands_in_the_receipt(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_recipe(work, {**BERT, "data": {"train": "labels.jsonl", "eval": "labels.jsonl"}})
    outcome = call(TRAIN, monkeypatch, capfd)
    assert outcome.code == 0
    assert "check overlap: 40 of 40 (100 %) evaluation rows are also training rows" in outcome.err
    receipt = Receipt.read(work / "run" / "receipt.json")
    (doubt,) = [finding for finding in receipt.checks if finding.verdict != "ok"]
    assert (doubt.check, doubt.verdict) == ("overlap", "warning") and len(receipt.checks) == 11
    assert any("overlap: 40 of 40" in line for line in plain_lines(receipt))
    assert "Checked before the first step, overlap: 40 of 40" in render_html(receipt)
    assert 0 < receipt.seconds_by_part["check"] < (receipt.measured("wall_seconds") or 0)


def test_checks_change_no_weight_and_a_continued_run_keeps_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str) -> bytes:
        return (tmp_path / name / "adapter-last" / "adapter_model.safetensors").read_bytes()

    def plan(name: str) -> tenfold.Plan:
        steps = {"log_every_steps": 1, "dtype": "float32"}
        lora = {"lora": {"rank": 4, "dropout": 0.1}}
        return tenfold.plan(make_recipe(tmp_path, train=steps, cuts=lora, output={"folder": str(tmp_path / name)}))

    def stop(event: Event) -> None:
        if event.kind == "step" and event.values["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted):
        tenfold.train(plan("stopped"), [stop])
    said: list[str] = []
    receipt = tenfold.train(plan("stopped"), [lambda event: said.append(str(event.values.get("text")))])
    assert len(receipt.checks) == 11 and not any("check " in text for text in said)
    monkeypatch.setattr("tenfold.run.train.check_rig", lambda *_: ())
    tenfold.train(plan("unchecked"))
    assert weights("stopped") == weights("unchecked")
