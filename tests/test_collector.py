"""Python's garbage collector does not look again and again at what stays."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from tenfold.collector import collect_rarely
if sys.argv[1] == "rarely":
    collect_rarely()
before = sum(one["collections"] for one in gc.get_stats())
import torch
print(sum(one["collections"] for one in gc.get_stats()) - before)
"""


def collections(how: str) -> int:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def test_imports_are_seldom_interrupted() -> None:
    """The control is Python's own way."""
    assert 10 * collections("rarely") < collections("by default")
