"""The page: complete, closed to the network, and deaf to what others wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from receipts import bare_receipt, full_receipt
from tenfold.errors import TenfoldError
from tenfold.receipt import CurvePoint, Hardware, Receipt
from tenfold.report import render_html, write_html

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title></svg></pre><iframe src=//example.com>",
    "]]>--><!--",
    "{{ 7 * 7 }}{% for x in y %}",
    "\x1b[31m\u202e\u2066\x00\x07",
    "=cmd()",
    "&lt;already&amp;",
    "y" * 2**20,
]

# HTML's void elements, and SVG's that are written as closed in place.
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would build: the elements, their attributes, the text, and whether all tags match."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


FULL = Page(render_html(full_receipt()))
FORBIDDEN_ELEMENTS = {"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "use", "a"}


@pytest.mark.parametrize("receipt", [full_receipt(), bare_receipt()], ids=["full", "bare"])
def test_the_page_is_whole_and_fetches_nothing(receipt: Receipt) -> None:
    content = render_html(receipt)
    page = Page(content)
    assert page.mismatched == []
    assert page.open == []
    assert not FORBIDDEN_ELEMENTS & set(page.elements)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert not re.search(r"https?:|@import|//[a-z]", content)
    assert re.findall(r"url\((.*?)\)", content) == ["#hatch-theirs"]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", "content", policy) in page.attributes
    assert "prefers-color-scheme: dark" in content


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_of_others_stays_text(text: str) -> None:
    content = render_html(full_receipt(text))
    page = Page(content)
    assert page.mismatched == []
    assert set(page.elements) == set(FULL.elements)
    assert {(tag, name) for tag, name, _ in page.attributes} == {(tag, name) for tag, name, _ in FULL.attributes}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", content)
    assert len(content) < 200_000
    if text.startswith("<script"):
        assert any(text in part for part in page.text)


def test_an_unescaped_page_would_be_caught() -> None:
    leaky = render_html(full_receipt("<script>alert(1)</script>")).replace("&lt;", "<").replace("&gt;", ">")
    assert "script" in Page(leaky).elements


def test_every_figure_is_there() -> None:
    text = " ".join("".join(FULL.text).split())
    for expected in (
        "9.59\u00d7 cheaper than transformers.Trainer, full fine-tune, its defaults (extrapolated from 12 %)",
        "11.5\u00d7 faster than naive",
        "$0.0333",
        "0.899 to 0.924",
        "+0.4 points (-1.4 to +2.1)",
        "accuracy at least 0.9: reached",
        "everything else",
        "team=support",
        "a" * 64,
        "python 3.11.7, torch 2.13.0, transformers 5.23.0",
        "from step 240, after SIGTERM",
    ):
        assert expected in text


def test_hatching_marks_what_was_not_measured() -> None:
    receipt = full_receipt()
    measured = receipt.model_copy(update={"baselines": receipt.baselines[1:]})
    assert "theirs hatched" in render_html(receipt)
    assert 'class="theirs hatched"' not in render_html(measured)


def test_an_unlike_or_worse_baseline_is_no_headline() -> None:
    receipt = full_receipt()
    elsewhere = receipt.baselines[0].model_copy(update={"hardware": Hardware(machine="h100")})
    dear = receipt.baselines[0].model_copy(update={"usd": 0.01})
    page = render_html(receipt.model_copy(update={"baselines": (elsewhere,)}))
    assert "Not comparable with transformers.Trainer" in page
    assert "cheaper" not in page
    assert "3.33\u00d7 dearer" in render_html(receipt.model_copy(update={"baselines": (dear,)}))


def test_an_edited_receipt_is_doubted() -> None:
    receipt = full_receipt()
    edited = receipt.model_copy(update={"bill": receipt.bill.model_copy(update={"usd": 0.01})})
    assert "does not agree with itself" in render_html(edited)
    assert "does not agree with itself" not in render_html(receipt)


def test_a_long_run_makes_a_small_page_and_keeps_its_spike() -> None:
    def curve(spike: float) -> tuple[CurvePoint, ...]:
        losses = (spike if step == 31_337 else 1.0 + step % 7 / 100 for step in range(50_000))
        return tuple(CurvePoint(step=n, tokens=n, seconds=float(n), loss=loss) for n, loss in enumerate(losses))

    flat, spiked = (render_html(full_receipt().model_copy(update={"curve": curve(spike)})) for spike in (1.0, 90.0))
    assert len(spiked) < 120_000
    assert ">100<" in spiked
    assert ">100<" not in flat


@pytest.mark.parametrize(
    "losses", [(), (1.0,), (None, None), (2.0, 2.0), (0.0, 0.0), (1e-9, 1e9), (None, 1.0, None, 0.5)]
)
def test_odd_curves_are_drawn_or_left_out(losses: tuple[float | None, ...]) -> None:
    points = tuple(CurvePoint(step=n, tokens=n, seconds=float(n), loss=loss) for n, loss in enumerate(losses))
    content = render_html(full_receipt().model_copy(update={"curve": points}))
    assert Page(content).mismatched == []
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", content.lower())


def test_written_where_asked_or_said_why(tmp_path: Path) -> None:
    write_html(full_receipt(), tmp_path / "receipt.html")
    assert (tmp_path / "receipt.html").read_text(encoding="utf-8") == render_html(full_receipt())
    with pytest.raises(TenfoldError, match=r"page\.html"):
        write_html(full_receipt(), tmp_path / "receipt.html" / "page.html")
