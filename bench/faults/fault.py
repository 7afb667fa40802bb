"""What a fault is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `tests`: "path" or "path::name" below tests/, or a campaign of bench/reliability.py."""

    name: str
    tests: tuple[str, ...]
    note: str = ""
