"""docs/reliability.md says what the committed results say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from faults import document
from faults.promises import LOSING_NOTHING


def test_the_document_is_up_to_date() -> None:
    """After a change: python bench/reliability.py --document"""
    assert document.DOCUMENT.read_text() == document.render()


def test_a_figure_comes_from_its_result(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    flips = next(one for one in LOSING_NOTHING if one.result == "reliability-flips")
    monkeypatch.setattr(document, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        document.figure_of(flips)
    for date, held in (("2026-01-02", 8), ("2026-01-01", 9)):
        summary = {"held": held, "tried": 9, "kinds_of_file": 3, "controls": 1, "controls_caught": 1}
        (tmp_path / f"reliability-flips_2cores_{date}.json").write_text(json.dumps({"summary": summary}))
    assert document.figure_of(flips) == "8 of 9 flips in 3 kinds of file seen"
    missed = {"summary": {**summary, "controls_caught": 0}}
    (tmp_path / "reliability-flips_2cores_2026-01-03.json").write_text(json.dumps(missed))
    with pytest.raises(ValueError, match="a control was not caught"):
        document.figure_of(flips)
    assert document.figure_of(replace(flips, result="")) == flips.figure
