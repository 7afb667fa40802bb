"""Every verb as a user meets it: results on stdout, progress on stderr, exit codes, files that others can read."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from command_line import BERT, Outcome, call, edit_json, write_recipe
from tenfold.planner import Plan
from tenfold.receipt import Receipt

VERBS = (
    "plan",
    "calibrate",
    "check",
    "train",
    "vocabulary",
    "prove",
    "report",
    "ledger",
    "merge",
    "preview",
    "schema",
    "demo",
)

AS_COMMAND = "import sys; sys.argv = ['tenfold', *{}]\nfrom tenfold.cli import main\nmain()"
"""`tenfold` with arguments, as Python code."""

Run = Callable[..., Outcome]


@pytest.fixture
def tenfold(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process; it must succeed unless a code is named."""

    def run(*arguments: str, code: int = 0) -> Outcome:
        outcome = call(arguments, monkeypatch, capfd)
        assert outcome.code == code, outcome.err
        return outcome

    return run


def process(*arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A real `python -m tenfold`."""
    command = [sys.executable, "-m", "tenfold", *arguments]
    environment = {**os.environ, **(variables or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)


def without_torch(code: str) -> None:
    """Run Python code in a process, and see that it never imported torch or transformers."""
    check = "import sys; found = {'torch', 'transformers'} & set(sys.modules); assert not found, found"
    done = python(f"{code}\n{check}")
    assert done.returncode == 0, done.stderr


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same adapter, bit for bit."""
    first, second = (load_file(run / "adapter-last" / "adapter_model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- real processes ---------------------------------------------------------------------------------------------------


def test_plan_train_and_their_results_in_real_processes(work: Path) -> None:
    planned = process("plan", "recipe.yaml", "--out", "made.json")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "Plan for" in planned.stdout
    trained = process("train", "made.json")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("tenfold receipt")
    assert "step 2/2" in trained.stderr
    assert "step 2/2" not in trained.stdout
    assert "Warning" not in trained.stderr
    reported = process("report", "run/receipt.json")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert reported.stdout == trained.stdout
    listed = process("ledger", "--path", "ledger.sqlite")
    assert listed.returncode == 0
    assert "spent" in listed.stdout


def test_prove_in_a_real_process(work: Path) -> None:
    pytest.importorskip("accelerate")
    before = Receipt.read(work / "done" / "receipt.json")
    done = process("prove", "done/receipt.json", "--minutes", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    proven = Receipt.model_validate_json(done.stdout)
    assert [item.kind for item in proven.baselines] == ["naive"]
    assert 0 < proven.baselines[0].measured_fraction <= 1
    assert Receipt.read(work / "done" / "receipt.json") == proven
    assert before.baselines == ()


def test_merge_in_a_real_process(work: Path) -> None:
    done = process("merge", "done/adapter-last", "merged")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "merged\n"
    assert done.stderr == ""
    merged = transformers.AutoModelForCausalLM.from_pretrained(work / "merged")
    base = transformers.AutoModelForCausalLM.from_pretrained(work / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(work / "merged")
    ids = torch.tensor([tokenizer("w1 w2 w3")["input_ids"]])
    with torch.no_grad():
        assert not torch.equal(merged(ids).logits, base(ids).logits)


@pytest.mark.parametrize("command", ["preview recipe.yaml", "schema", "demo --help", "--help"])
def test_the_other_verbs_in_real_processes(command: str, work: Path) -> None:
    done = process(*command.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_usage_errors_in_a_real_process(work: Path) -> None:
    done = process("plna")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tenfold: No such command 'plna'")
    assert done.stderr.endswith("; see tenfold --help\n")


def test_a_budget_that_runs_out_is_code_5_and_continues(work: Path) -> None:
    write_recipe(work, {"train": {"max_steps": 3}})
    assert process("plan", "recipe.yaml", "--out", "tight.json").returncode == 0
    plan = json.loads((work / "tight.json").read_text())
    dear = plan["machine"] | {"usd_per_hour": 3600.0}  # a dollar a second
    edit_json(work / "tight.json", machine=dear, recipe=plan["recipe"] | {"budget": {"usd": 0.01}})
    done = process("train", "tight.json")
    assert done.returncode == 5, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tenfold: budget reached at step 0 of 3, checkpoint saved in run; raise it")
    assert json.loads((work / "run" / "receipt.json").read_text())["status"] == "stopped_at_budget"
    again = process("train", "recipe.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["resumes"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_there_is_a_run_leaves_no_traceback(number: signal.Signals, work: Path) -> None:
    kill = f"import os, tenfold.api\ntenfold.api.plan = lambda *_: os.kill(os.getpid(), {number:d})"
    done = python(f"{kill}\n{AS_COMMAND.format(['plan', 'recipe.yaml'])}")
    assert "Traceback" not in done.stderr
    if number is signal.SIGINT:
        assert (done.returncode, done.stderr) == (130, "tenfold: interrupted\n")
    else:
        assert done.returncode == -signal.SIGTERM  # the shell's 143: nothing was begun, so nothing is to be continued


def test_a_closed_pipe_is_no_error_to_read() -> None:
    command = f"{sys.executable} -m tenfold schema | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    command = f"{sys.executable} -m tenfold schema > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stderr == "tenfold: file system: No space left on device\n"


def test_a_terminal_without_unicode_is_served(work: Path) -> None:
    done = process("preview", "recipe.yaml", variables={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "train.jsonl:1" in done.stdout


def test_no_torch_for_help_plan_and_results(work: Path) -> None:
    commands = ("--help", "plan recipe.yaml", "preview recipe.yaml", "report done/receipt.json", "ledger", "schema")
    for command in commands:
        without_torch(AS_COMMAND.format(command.split()))
    with pytest.raises(AssertionError, match="torch"):  # the control: training does import it
        without_torch("import tenfold.run.train")


# --- in this process --------------------------------------------------------------------------------------------------


def test_no_arguments_show_the_help(tenfold: Run) -> None:
    outcome = tenfold()
    assert outcome.err == ""
    assert all(verb in outcome.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, tenfold: Run) -> None:
    outcome = tenfold(verb, "--help")
    assert outcome.out.startswith(f"Usage: tenfold {verb}")
    assert outcome.err == ""


def test_the_plan_is_the_same_on_screen_as_json_and_in_a_file(work: Path, tenfold: Run) -> None:
    shown = tenfold("plan", "recipe.yaml", "--json", "--out", "made.json")
    plan = Plan.model_validate_json(shown.out)
    assert Plan.read(work / "made.json") == plan
    assert shown.err == ""
    text = tenfold("plan", "recipe.yaml")
    assert plan.machine.label in text.out
    assert max(len(line) for line in text.out.splitlines()) <= 120
    assert not (work / "run").exists()


def test_overrides_change_the_plan(work: Path, tenfold: Run) -> None:
    changed = tenfold("plan", "recipe.yaml", "--set", "train.max_steps=5", "--set", "cuts.lora.rank=8", "--json")
    recipe = json.loads(changed.out)["recipe"]
    assert recipe["train"]["max_steps"] == 5
    assert recipe["cuts"]["lora"]["rank"] == 8
    plain = json.loads(tenfold("plan", "recipe.yaml", "--json").out)["recipe"]
    assert (plain["train"]["max_steps"], plain["cuts"]["lora"]["rank"]) == (2, 2)


def test_training_a_plan_is_training_its_recipe(work: Path, tenfold: Run) -> None:
    tenfold("plan", "recipe.yaml", "--out", "made.json", "--set", "output.folder=from-plan")
    by_plan = json.loads(tenfold("train", "made.json", "--json").out)
    by_recipe = json.loads(tenfold("train", "recipe.yaml", "--json").out)
    assert [point["loss"] for point in by_plan["curve"]] == [point["loss"] for point in by_recipe["curve"]]
    assert same_weights(work / "from-plan", work / "run")
    tenfold("train", "recipe.yaml", "--set", "train.seed=1", "--set", "output.folder=other")
    assert not same_weights(work / "run", work / "other")


def test_events_are_json_lines_on_stderr(work: Path, tenfold: Run) -> None:
    outcome = tenfold("train", "recipe.yaml", "--json")
    receipt = Receipt.model_validate_json(outcome.out)
    events = [json.loads(line) for line in outcome.err.splitlines()]
    assert receipt.status == "done"
    assert {"note", "step", "evaluated", "saved", "finished"} <= {event["event"] for event in events}
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2]


def test_a_finished_run_is_not_trained_again(work: Path, tenfold: Run) -> None:
    write_recipe(work, {"output": {"folder": "done"}})
    shutil.copytree(work / "done", work / "before")
    outcome = tenfold("train", "recipe.yaml", "--json")
    assert not [line for line in outcome.err.splitlines() if json.loads(line)["event"] == "step"]
    assert same_weights(work / "done", work / "before")


def test_the_receipt_on_screen_as_json_and_as_a_page(work: Path, tenfold: Run) -> None:
    receipt = Receipt.read(work / "done" / "receipt.json")
    assert tenfold("report", "done/receipt.json").out.startswith("tenfold receipt  done  done")
    assert Receipt.model_validate_json(tenfold("report", "done/receipt.json", "--json").out) == receipt
    assert tenfold("report", "done/receipt.json", "--html", "page.html").out == "page.html\n"
    page = (work / "page.html").read_text(encoding="utf-8")
    parser = HTMLParser()
    parser.feed(page)
    assert page.lower().startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    told = tenfold("report", "done/receipt.json", "--html", "page.html", "--json")
    assert json.loads(told.out) == {"html": "page.html"}


def test_the_ledger_lists_filters_and_exports(work: Path, tenfold: Run) -> None:
    tenfold("train", "recipe.yaml", "--set", "output.tags=[nightly, lora]")
    at = ("--path", "ledger.sqlite")
    everything = json.loads(tenfold("ledger", *at, "--json").out)
    assert len(everything) == 2
    assert json.loads(tenfold("ledger", *at, "--export", "json").out) == everything
    tagged = json.loads(tenfold("ledger", *at, "--tag", "nightly", "--json").out)
    assert [row["tags"] for row in tagged] == [["nightly", "lora"]]
    assert json.loads(tenfold("ledger", *at, "--tag", "nobody", "--json").out) == []
    assert json.loads(tenfold("ledger", *at, "--limit", "1", "--json").out) == everything[-1:]
    rows = list(csv.DictReader(io.StringIO(tenfold("ledger", *at, "--export", "csv").out)))
    assert [row["run_id"] for row in rows] == [row["run_id"] for row in everything]
    assert "spent" in tenfold("ledger", *at).out


def test_the_ledger_notices_a_changed_receipt(work: Path, tenfold: Run) -> None:
    at = ("--path", "ledger.sqlite", "--verify")
    assert tenfold("ledger", *at).out == "every row is as it was written\n"
    assert json.loads(tenfold("ledger", *at, "--json").out) == {"problems": []}
    edit_json(work / "done" / "receipt.json", seed=7)
    problems = json.loads(tenfold("ledger", *at, "--json", code=1).out)["problems"]
    assert len(problems) == 1
    assert "was changed after it was billed" in problems[0]
    assert tenfold("ledger", *at, code=1).out.splitlines() == problems


def test_the_default_ledger_may_be_empty(tenfold: Run) -> None:
    assert json.loads(tenfold("ledger", "--json").out) == []
    assert tenfold("ledger").out.strip()


def test_merge_names_its_folder(work: Path, tenfold: Run) -> None:
    assert json.loads(tenfold("merge", "done/adapter-best", "merged", "--json").out) == {"model": "merged", "facts": []}
    assert (work / "merged" / "model.safetensors").is_file()


def test_preview_marks_what_is_learned(work: Path, tenfold: Run) -> None:
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    outcome = tenfold("preview", "recipe.yaml", "--rows", "2")
    first, second = (line for line in outcome.out.splitlines() if line)
    assert first.startswith("train.jsonl:1  ")
    assert second.startswith("train.jsonl:2  ")
    learned = first[first.index("⟦") + 1 : first.rindex("⟧")]
    assert rows[0]["completion"].split() == learned.replace("</s>", "").split()
    assert first.index(rows[0]["prompt"].split()[0]) < first.index("⟦")
    assert outcome.err == ""
    assert tenfold("preview", "plan.json", "--rows", "2").out == outcome.out


def test_preview_of_a_classifier_names_the_label(work: Path, tenfold: Run) -> None:
    write_recipe(work, BERT)
    assert "-> label" in tenfold("preview", "recipe.yaml", "--rows", "1").out


def test_the_schema_is_json_schema(tenfold: Run) -> None:
    schema = json.loads(tenfold("schema").out)
    assert {"model", "task", "data", "cuts"} <= set(schema["properties"])


def test_no_plan_fits_is_code_3(work: Path, tenfold: Run) -> None:
    outcome = tenfold("plan", "recipe.yaml", "--set", "budget.hours=1e-9", code=3)
    assert outcome.out == ""
    assert len(outcome.said) == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to"), RuntimeError("can't allocate memory")]
)
@pytest.mark.parametrize("where", ["_build", "train_steps"])
def test_out_of_memory_is_code_4(
    where: str, error: Exception, work: Path, tenfold: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"tenfold.run.train.{where}", fail)
    outcome = tenfold("train", "recipe.yaml", code=4)
    assert len(outcome.said) == 1
    assert outcome.said[0].startswith(f"tenfold: out of memory on cpu: {error}")
    assert "Set train.micro_batch_size" in outcome.said[0]


def test_bad_usage_is_code_2(work: Path, tenfold: Run) -> None:
    assert len(tenfold("plan", "recipe.yaml", "--set", "train.epoch=1", code=2).said) == 1


def test_json_on_a_failure_leaves_stdout_empty(work: Path, tenfold: Run) -> None:
    for verb in ("plan", "train"):
        assert tenfold(verb, "nope.yaml", "--json", code=2).out == ""


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    work: Path, tenfold: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tenfold.run.checkpoint as module

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_file", full)
        outcome = tenfold("train", "recipe.yaml", code=1)
    (said,) = outcome.said
    assert "No space left on device; needs" in said
    assert "Traceback" not in outcome.err
    assert not list((work / "run" / "checkpoints").glob("step-*"))
    assert tenfold("train", "recipe.yaml").code == 0
