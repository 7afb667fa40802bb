"""Python's garbage collector, in a process that is all tenfold's."""

from __future__ import annotations

import gc

NEW_OBJECTS = 50_000
"""After which it looks for cycles. By default after 700: while torch, transformers and the compiler are imported, 1,163
times among objects that all stay, a fifth of the time; so it is 15 times (torch 2.13; tests/test_collector.py counts
them for torch alone)."""


def collect_rarely() -> None:
    """Before anything heavy is imported."""
    gc.set_threshold(NEW_OBJECTS)
