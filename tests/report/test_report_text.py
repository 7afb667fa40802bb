"""The receipt on a terminal and in a pipe."""

from __future__ import annotations

import io
import unicodedata

import pytest
from rich.console import Console

from receipts import bare_receipt, full_receipt
from tenfold.receipt import Baseline, Receipt
from tenfold.report import plain_lines, render_text

HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202etxt.exe",
    "=cmd()|' /C calc'!A0",
    "[bold red]markup[/bold red] [/] [link=https://example.com]x[/link]",
    "{{ 7 * 7 }} {% raw %}",
    "\r\x1b[2Kgone",
    "x" * 2**20,
]


def shown(receipt: Receipt) -> str:
    return "\n".join(plain_lines(receipt))


def test_what_was_paid_beside_what_would_have_been() -> None:
    text = shown(full_receipt())
    for expected in (
        "support-tickets  done",
        "$0.384 per hour, on-demand list price, c7a.2xlarge, 2026-11-09",
        "lora (approximate); rank 16",
        "measured   extrapolated from 12 %",
        "4 min 11 s              48 min 14 s   11.5x",
        "0.912   0.899 to 0.924   2,000",
        "+0.4 points (-1.4 to +2.1)",
        "accuracy at least 0.9: reached",
        "1.22 GiB     1.15 GiB   +5.6 %",
        "total                5 min 12 s   $0.0333",
        "rejections       empty text 7, unknown label 3",
        "from step 240, after SIGTERM",
    ):
        assert expected in text


def test_a_run_without_price_or_baseline_claims_nothing() -> None:
    text = shown(bare_receipt())
    assert "no price was stated, so no cost is claimed" in text
    assert "$" not in text
    assert "ratio" not in text
    assert "not measured" in text


def test_what_is_worse_is_said() -> None:
    receipt = full_receipt()
    slow = receipt.baselines[0].model_copy(update={"train_seconds": 100.0})
    assert "0.40x" in shown(receipt.model_copy(update={"baselines": (slow,)}))


def test_an_unlike_baseline_is_said_to_be_so() -> None:
    receipt = full_receipt()
    other = receipt.baselines[0].model_copy(update={"data_sha256": "e" * 64})
    assert "not comparable: it read other data" in shown(receipt.model_copy(update={"baselines": (other,)}))


def test_a_predicted_baseline_is_labelled() -> None:
    predicted = Baseline(kind="naive", label="Trainer", how="predicted", measured_fraction=0.0, train_seconds=9e4)
    text = shown(full_receipt().model_copy(update={"baselines": (predicted,)}))
    assert "predicted" in text
    assert "25 h 00 min" in text
    assert "extrapolated" not in text


def test_an_edited_receipt_is_doubted() -> None:
    receipt = full_receipt()
    edited = receipt.model_copy(update={"bill": receipt.bill.model_copy(update={"usd": 0.01})})
    assert "does not agree with itself" in shown(edited)
    assert "does not agree with itself" not in shown(receipt)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_of_others_is_obeyed(text: str) -> None:
    plain = shown(full_receipt(text))
    categories = {unicodedata.category(character) for character in plain.replace("\n", "")}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(plain) < 60_000
    if text.startswith("["):
        assert "[bold" in plain
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=True, color_system="truecolor").print(
        render_text(full_receipt(text))
    )
    ours = io.StringIO()
    Console(file=ours, width=200, force_terminal=True, color_system="truecolor").print(render_text(full_receipt()))
    assert escapes(stream.getvalue()) <= escapes(ours.getvalue())


def escapes(output: str) -> set[str]:
    """Every escape code in an output, up to the letter that ends it."""
    return {"\x1b" + part.split("m")[0] for part in output.split("\x1b")[1:]}


def test_lines_fit_a_pipe() -> None:
    assert all(len(line) <= 100 and line == line.rstrip() for line in plain_lines(full_receipt()))
    assert plain_lines(full_receipt())[-1] != ""
