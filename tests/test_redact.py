"""Secrets are taken out of every sink: a canary in environment, addresses, errors and names is found nowhere."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import tenfold.redact as module
from command_line import call, tree, write_recipe
from receipts import full_receipt
from tenfold.errors import InputError
from tenfold.ledger import Ledger, Row, export_csv, export_json
from tenfold.receipt import Finding, Receipt
from tenfold.recipe import parse_recipe
from tenfold.redact import REDACTED, holds_secret, redact
from tenfold.report import plain_lines, render_html

CANARY = "hf_CanaryCanaryCanaryCanary0123456789"

SECRETS = [
    CANARY,
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1" * 18,
    "github_pat_" + "a1" * 30,
    "sk-proj-" + "x_y-" * 10,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
]

AROUND = [
    ("Authorization: Bearer abcdefghijklmnop123", "Authorization: Bearer [redacted]"),
    ("authorization: basic dXNlcjpwYXNzd29yZA==", "authorization: basic [redacted]"),
    ("https://user:pass@proxy.example:3128/x", "https://[redacted]@proxy.example:3128/x"),
    ("https://token@host/x", "https://[redacted]@host/x"),
    ("GET /x?a=1&token=abc123&b=2", "GET /x?a=1&token=[redacted]&b=2"),
]

INNOCENT = [
    "Qwen/Qwen3-0.6B", "hf_model", "sentence-transformers/all-MiniLM-L6-v2", "https://example.com/a@b", "a@b.example",
    "d" * 64, "bearer of news", "basic training", "runs/sk-learn", "file:///tmp/x", "mail to me@here at https://there",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_goes_and_the_text_around_it_stays(secret: str) -> None:
    assert redact(f"before {secret} after") == f"before {REDACTED} after"
    assert holds_secret(json.dumps({"key": secret}).replace("\\n", "\n"))
    assert redact(redact(secret)) == redact(secret)


@pytest.mark.parametrize(("text", "shown"), AROUND)
def test_what_names_the_secret_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("text", INNOCENT)
def test_other_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "my_password"])
def test_values_of_the_environment_go_whatever_they_look_like(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct horse battery")
    assert redact("x correct horse battery y") == f"x {REDACTED} y"
    monkeypatch.setenv(name, "word")
    assert redact("a word") == "a word", "too short to be a secret"


def test_redacted_json_is_json() -> None:
    text = json.dumps([*SECRETS, *(before for before, _ in AROUND), 'quote " and \\ backslash'])
    assert len(json.loads(redact(text))) == len(SECRETS) + len(AROUND) + 1


HOLDING = [
    f"output: {{tags: [a, {CANARY}]}}",
    f"output: {{folder: runs/{CANARY}}}",
    "data: {train: 'https://u:pw@h/x.jsonl'}",
]


@pytest.mark.parametrize("line", HOLDING)
def test_a_recipe_that_holds_one_is_refused_without_repeating_it(line: str) -> None:
    head = "model: tiny\ntask: sft\n" + ("" if line.startswith("data") else "data: x.jsonl\n")
    with pytest.raises(
        InputError, match=r"holds what looks like a secret.*put it into an environment variable"
    ) as caught:
        parse_recipe(head + line, "recipe.yaml")
    assert "Canary" not in str(caught.value) and "pw@" not in str(caught.value)


def sinks(folder: Path) -> dict[str, str]:
    """Everything that a text of a receipt or a row ends up in."""
    receipt = full_receipt(f"see https://u:{CANARY}@host, {CANARY}")
    receipt.write(folder / "receipt.json")
    row = Row(CANARY, "spent", CANARY, CANARY, "sft", "local", tags=(CANARY,), receipt_path=f"/x/{CANARY}")
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.append(row)
        rows = ledger.rows()
        assert ledger.verify() == []
    csv, as_json = io.StringIO(), io.StringIO()
    export_csv(rows, csv)
    export_json(rows, as_json)
    return {
        "receipt": (folder / "receipt.json").read_text(),
        "page": render_html(receipt),
        "text": "\n".join(plain_lines(receipt)),
        "notebook": receipt._repr_html_(),  # pyright: ignore[reportPrivateUsage]
        "ledger": "".join(path.read_bytes().decode("latin-1") for path in folder.glob("ledger.sqlite*")),
        "csv": csv.getvalue(),
        "json": as_json.getvalue(),
        "error": str(InputError(f"401 for {CANARY}")),
    }


def test_no_sink_holds_the_canary(tmp_path: Path) -> None:
    assert [name for name, text in sinks(tmp_path).items() if "Canary" in text] == []
    Receipt.read(tmp_path / "receipt.json")


def test_every_sink_would_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the patterns the canary is in all of them."""
    monkeypatch.setattr(module, "PATTERN", re.compile(r"(?!)"))
    found = sinks(tmp_path)
    assert [name for name, text in found.items() if "Canary" not in text] == []


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_a_run_and_all_that_it_leaves_are_clean(
    flags: tuple[str, ...], work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "the canary sings")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{CANARY}@127.0.0.1:9")
    doubt = Finding(check="overlap", verdict="warning", text=f"seen by {CANARY} and by the canary sings")
    monkeypatch.setattr("tenfold.run.train.check_rig", lambda *_: (doubt,))
    heard = ""
    for command in (("train", "recipe.yaml"), ("report", "run/receipt.json"), ("ledger", "--path", "ledger.sqlite")):
        outcome = call((*command, *flags), monkeypatch, capfd)
        assert outcome.code == 0, outcome.err
        heard += outcome.out + outcome.err
    call(("report", "run/receipt.json", "--html", "page.html"), monkeypatch, capfd)
    left = heard + "".join(content.decode("latin-1") for content in tree(work).values())
    assert REDACTED in heard and REDACTED in (work / "page.html").read_text()
    assert "Canary" not in left and "canary sings" not in left


class Torn(RuntimeError):
    """A fault that nobody foresaw."""


@pytest.mark.parametrize("error", [Torn, InputError, OSError])
def test_errors_tell_no_secret(
    error: type[Exception], work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error(f"403 for url https://u:{CANARY}@hub.example, Authorization: Bearer {CANARY}")

    monkeypatch.setattr("tenfold.api.make_plan", fail)
    outcome = call(("plan", "recipe.yaml"), monkeypatch, capfd)
    assert outcome.code in (1, 2) and "403" in outcome.err and REDACTED in outcome.err
    assert "Canary" not in outcome.err + outcome.out


def test_the_recipe_of_a_clean_run_holds_none(work: Path) -> None:
    write_recipe(work, {})
    assert not holds_secret((work / "recipe.yaml").read_text())
