"""What a run has spent so far, for the attempt that comes after a kill.

A saved state holds the account up to it. What was spent after the last one is spent all the same: it is billed, and it
counts against the budget, also where a machine dies again and again before its first save.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, cast

NAME = "spent.json"

_EVERY_SECONDS = 0.5
"""A write takes some ten microseconds; on a network drive some milliseconds."""

_WIDTH_BYTES = 1024
"""Always as many bytes, in one write: a kill leaves the old content or the new, with no rename to pay for."""


@dataclass(frozen=True)
class Spent:
    """Seconds of all attempts of a run together."""

    wall_seconds: float = 0.0
    seconds_by_part: Mapping[str, float] = field(default_factory=dict[str, float])


class Tally:
    """Notes in `<folder>/spent.json` what was spent. It is never forced to disk: a power cut may lose it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._noted_at = float("-inf")

    def read(self) -> Spent:
        """What was noted last; nothing if there is no note, or none that can be read."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return Spent()
        if not isinstance(found, dict):
            return Spent()
        values = cast("dict[str, Any]", found)
        wall, parts = values.get("wall_seconds"), values.get("seconds_by_part")
        if not _is_amount(wall) or not isinstance(parts, dict):
            return Spent()
        by_part = cast("dict[str, Any]", parts)
        return Spent(float(wall), by_part) if all(map(_is_amount, by_part.values())) else Spent()

    def note(self, spent: Spent, *, now: bool = False) -> None:
        """Note it, unless the last note is younger than half a second; `now`: in any case.

        A disk that takes no note does not stop a run.
        """
        if not now and time.monotonic() - self._noted_at < _EVERY_SECONDS:
            return
        self._noted_at = time.monotonic()
        values = {"wall_seconds": spent.wall_seconds, "seconds_by_part": dict(spent.seconds_by_part)}
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                content = json.dumps(values).ljust(_WIDTH_BYTES).encode()
                os.pwrite(descriptor, content, 0)
                os.ftruncate(descriptor, len(content))  # of whatever else stood there
            finally:
                os.close(descriptor)


def _is_amount(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value < float("inf")
