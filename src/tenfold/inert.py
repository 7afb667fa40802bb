"""Text from elsewhere made inert: names, labels and file paths may hold anything, and a receipt shows them.

Three sinks, three dangers: a console obeys escape codes and direction overrides, a spreadsheet runs a cell that starts
with `=`, a browser runs markup. `printable` serves the first, `csv_cell` the second; templates escape for the third.
"""

from __future__ import annotations

import re
import unicodedata

from tenfold.redact import redact

# ECMA-48: CSI sequences, then OSC/DCS/SOS/PM/APC strings up to their terminator, then two-character escapes.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\Z)|\x1b[ -/]*[0-~]?", re.DOTALL)

# Joiners carry meaning in Persian, Hindi and emoji, and move nothing; every other format character goes.
_KEPT_FORMATS = frozenset("\u200c\u200d")

# What a spreadsheet takes for the start of a formula (OWASP, "CSV Injection"), with the full-width forms Excel accepts.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

_LONGEST_SHOWN = 400

_LONGEST_SECRET = 8192
"""Characters: a private key of 4,096 bits has some 3,300."""


def printable(text: str, longest: int = _LONGEST_SHOWN) -> str:
    """One line of `text` that a terminal shows and does not obey, without secrets, cut to `longest` characters."""
    # Cutting first bounds the work on a hostile megabyte; escape codes make a text shorter, never longer. Secrets go
    # after the codes that could part one, and before the cut that could leave half of one.
    head = _ESCAPES.sub("", text[: longest * 4 + _LONGEST_SECRET])
    shown = redact(" ".join("".join(map(_shown, head)).split()))
    return shown if len(shown) <= longest and len(text) <= longest * 4 else shown[: longest - 1].rstrip() + "…"


def printable_lines(text: str) -> str:
    """`text` with its lines and spaces as they are, and nothing in it that a terminal obeys, without secrets."""
    lines = _ESCAPES.sub("", text).split("\n")
    return redact("\n".join("".join(map(_shown, line)) for line in lines))


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r\v\f" or category in ("Zl", "Zp"):
        return " "
    if category in ("Cc", "Cs") or (category == "Cf" and character not in _KEPT_FORMATS):
        return ""
    return character


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet shows it and does not run it: a leading ' where a formula would begin."""
    shown = printable(text, longest=32_767)  # Excel's limit of characters in one cell
    starts_formula = text.lstrip(" ").startswith(_FORMULA_STARTS) or shown.startswith(_FORMULA_STARTS)
    return f"'{shown}" if starts_formula else shown
