"""What a run tells its observers. Observers look; they never change a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Something that happened: "started", "step", "evaluated", "saved", "note" or "finished"."""

    kind: str
    values: Mapping[str, float | int | str | None] = field(default_factory=dict[str, "float | int | str | None"])


Observer = Callable[[Event], None]
