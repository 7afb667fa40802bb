"""The checks in their order, and what is done with what they find."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenfold.checks.paper import Paper
from tenfold.checks.rows import labels, learned_tokens, overlap, stop_token, truncation
from tenfold.checks.tokens import known_text, template, vocabulary
from tenfold.data import Sample
from tenfold.errors import InputError
from tenfold.inert import printable, printable_lines
from tenfold.receipt import Finding

if TYPE_CHECKING:
    from tenfold.rig.rig import Rig

LIMIT_SECONDS = 60.0

PAPER_CHECKS: tuple[Callable[[Paper], Finding], ...] = (
    truncation, learned_tokens, stop_token, overlap, labels, vocabulary, known_text, template,
)  # fmt: skip
"""What rows and tokenizer tell without torch, in less than a second."""

RIG_CHECKS = ("packing", "accumulation", "export")
"""What only the model can tell; their functions import torch."""


@dataclass(frozen=True)
class Checked:
    """What `tenfold check` shows: every finding, and how the model sees the first row."""

    findings: tuple[Finding, ...]
    example: str
    """The first row with its learned tokens marked; from the data, so it stands in no receipt."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        found = [finding.model_dump() for finding in self.findings]
        return {"findings": found, "example": self.example, "seconds": self.seconds}

    def __rich__(self) -> Any:
        """One line for each check, then the example."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in self.findings:
            style = {"ok": "green", "warning": "yellow", "refusal": "red"}.get(finding.verdict, "")
            verdict = Text(finding.verdict.replace("_", " "), style=style)
            table.add_row(verdict, Text(finding.check), Text(printable(finding.text)))
        example = Text(f"\nthe first row, what is learned in brackets:\n{printable_lines(self.example)}\n")
        return Group(table, example, Text(f"{len(self.findings)} checks in {self.seconds:.1f} s"))


def check_paper(paper: Paper) -> tuple[Finding, ...]:
    """What rows and tokenizer tell."""
    return tuple(check(paper) for check in PAPER_CHECKS)


def check_rig(rig: Rig, samples: Sequence[Sample], limit_seconds: float = LIMIT_SECONDS) -> tuple[Finding, ...]:
    """What the model tells, on a few short rows; what would not fit into the time is left out and said so.

    Nothing random is drawn, and the model is left as it was.
    """
    from tenfold.checks.exported import export
    from tenfold.checks.layout import Trial, accumulation, few_rows, packing

    trial, started = Trial(rig, few_rows(samples)), time.monotonic()
    findings, longest = list[Finding](), 0.0
    for name, check in zip(RIG_CHECKS, (packing, accumulation, lambda trial: export(rig, trial.rows)), strict=True):
        began = time.monotonic()
        if began - started + longest > limit_seconds:
            text = f"left out for time: {began - started:.0f} s of {limit_seconds:.0f} s are spent"
            findings.append(Finding(check=name, verdict="left_out", text=text))
            continue
        findings.append(check(trial))
        longest = max(longest, time.monotonic() - began)
    return tuple(findings)


def left_out(why: str) -> tuple[Finding, ...]:
    """The checks of the model, where it cannot be had."""
    return tuple(Finding(check=name, verdict="left_out", text=why) for name in RIG_CHECKS)


def refuse(findings: Iterable[Finding]) -> None:
    """Raises InputError with one line for each refusal, if there is one."""
    refusals = [f"check {found.check}: {found.text}" for found in findings if found.verdict == "refusal"]
    if refusals:
        raise InputError("\n".join(refusals))
