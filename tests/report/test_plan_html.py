"""A plan as a page: everything a person asks, nothing that a name could inject."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from paper import machines, plan_on_paper
from tenfold.errors import TenfoldError
from tenfold.job import KINDS
from tenfold.planner import Plan
from tenfold.report import render_plan_html, write_plan_html


class Page(HTMLParser):
    """Tags, and the text of each picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: dict[str, list[str]] = {}
        self._picture: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "svg" and dict(attrs).get("aria-label"):
            self._picture = self.pictures.setdefault(str(dict(attrs)["aria-label"]), [])

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._picture = None

    def handle_data(self, data: str) -> None:
        if self._picture is not None and data.strip():
            self._picture.append(data)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_on_paper(machines("H200 SXM", "L40S", "L4", "A100 80GB"))


def test_shows_what_was_chosen_why_and_what_else_there_is(plan: Plan) -> None:
    page = render_plan_html(plan)
    for text in (plan.machine.label, *plan.why, *plan.buys, "What is billed", "Runners-up"):
        assert text.replace("'", "&#39;").replace(">", "&gt;").replace("+", "+") in page


def test_every_machine_has_its_memory_and_every_kind_its_colour(plan: Plan) -> None:
    page = Page(render_plan_html(plan))
    bars = page.pictures["memory by machine"]
    assert [text for text in bars if text in {one.machine for one in plan.by_machine}] == [
        one.machine for one in plan.by_machine
    ]
    assert sum(" GB" in text for text in bars) == len(plan.by_machine) >= 4
    assert all(kind in render_plan_html(plan) for kind in KINDS)


def test_dollars_stand_against_hours_with_the_chosen_way_marked(plan: Plan) -> None:
    page = Page(render_plan_html(plan))
    labels = page.pictures["dollars against hours"]
    assert any(plan.machine.label in text for text in labels)
    assert any(text.endswith(" h") for text in labels)
    assert any(text.startswith("$") for text in labels)


def test_needs_nothing_from_anywhere(plan: Plan) -> None:
    text = render_plan_html(plan)
    assert not {"script", "link", "img", "iframe"} & set(Page(text).tags)
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_a_name_is_text_and_no_markup() -> None:
    plan = plan_on_paper(name="<script>alert(1)</script>\x1b[31m")
    text = render_plan_html(plan)
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text


def test_a_plan_without_prices_has_a_page() -> None:
    (machine,) = machines("H200 SXM")[:1]
    text = render_plan_html(plan_on_paper([replace(machine, rent_usd_per_hour=None)]))
    assert "dollars against hours" not in text
    assert "no price" in text


def test_is_written_or_says_why_not(plan: Plan, tmp_path: Path) -> None:
    write_plan_html(plan, tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text(encoding="utf-8") == render_plan_html(plan)
    with pytest.raises(TenfoldError, match=r"page\.html"):
        write_plan_html(plan, tmp_path / "plan.html" / "page.html")
