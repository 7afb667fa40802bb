"""Hostile text, and what each sink makes of it."""

import unicodedata

import pytest

from tenfold.inert import csv_cell, printable

PRINTABLE = [
    ("plain", "plain"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x9b31mred", "red"),
    ("\x1b]0;title\x07after", "after"),
    ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b]0;never ended", ""),
    ("a\x1bcb", "ab"),
    ("invoice\u202etxt.exe", "invoicetxt.exe"),
    ("\u2066isolated\u2069", "isolated"),
    ("\ufeffbom", "bom"),
    ("two\nlines\r\n\tand a tab", "two lines and a tab"),
    ("para\u2029graph", "para graph"),
    ("bell\a null\0 del\x7f", "bell null del"),
    ("\ud800lone", "lone"),
    ("नमस्\u200dते 日本語 é", "नमस्\u200dते 日本語 é"),
]

CELLS = [
    ("=cmd()", "'=cmd()"),
    ("+1", "'+1"),
    ("-1+1", "'-1+1"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'=1"),
    ("\r=1", "'=1"),
    ("  =1", "'=1"),
    ("\x1b[0m=1", "'=1"),
    ("\u200e=1", "'=1"),
    ("\uff1dcmd()", "'\uff1dcmd()"),
    ("a=b", "a=b"),
    ("lora", "lora"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), PRINTABLE)
def test_a_terminal_has_nothing_to_obey(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_control_and_format_character_goes() -> None:
    everything = "".join(map(chr, range(0x30000)))
    shown = "".join(printable(everything[start : start + 300], 10_000) for start in range(0, len(everything), 300))
    left = {character for character in shown if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert left <= {"\u200c", "\u200d"}
    assert {"a", "é", "日"} <= set(shown)


@pytest.mark.parametrize("text", ["x" * 2**20, "\x1b[31m" * 2**18, "\u202e" * 2**20 + "x", "y" * 401])
def test_a_megabyte_is_cut(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 400
    assert shown.endswith("…")


def test_the_longest_that_fits_is_whole() -> None:
    assert printable("y" * 400) == "y" * 400


@pytest.mark.parametrize(("text", "cell"), CELLS)
def test_a_spreadsheet_has_nothing_to_run(text: str, cell: str) -> None:
    assert csv_cell(text) == cell
