"""The only code that reads clocks and memory while training."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch

from tenfold.memory import peak_resident_bytes, reset_peak_resident, resident_bytes


class Meter:
    """Seconds by part, peak memory, dollars. Adds to what earlier attempts of the same run have spent."""

    def __init__(self, device: torch.device, usd_per_hour: float | None, age_seconds: float = 0.0) -> None:
        """`age_seconds`: how long what is billed has been going on already, imports included."""
        self.device = device
        self.usd_per_hour = usd_per_hour
        self.spent_before_seconds = 0.0
        self._booked: dict[str, float] = {"import": age_seconds}
        self._open: list[str] = []
        """Parts begun and not ended, the innermost last: only that one is running."""
        self._since = time.monotonic()
        self._started = time.monotonic() - age_seconds
        self.idle_bytes = 0 if device.type == "cuda" else resident_bytes()
        """What the process held with the libraries imported and no model loaded."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_peak_resident()

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        """Add the time inside to part `name`; a part within another counts once, for the inner one."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """Seconds of every part until now, earlier attempts and open parts included."""
        self._book()
        return dict(self._booked)

    def add_earlier(self, wall_seconds: float, seconds_by_part: Mapping[str, float]) -> None:
        """Count what earlier attempts of this run have spent."""
        self.spent_before_seconds += wall_seconds
        for name, seconds in seconds_by_part.items():
            self._booked[name] = self._booked.get(name, 0.0) + seconds

    def _book(self) -> None:
        now = time.monotonic()
        if self._open:
            name = self._open[-1]
            self._booked[name] = self._booked.get(name, 0.0) + now - self._since
        self._since = now

    @property
    def wall_seconds(self) -> float:
        """Since the run was asked for, earlier attempts included: what a meter at the machine's door would show."""
        return self.spent_before_seconds + time.monotonic() - self._started

    @property
    def usd(self) -> float | None:
        """Dollars so far, None without a price."""
        return None if self.usd_per_hour is None else self.wall_seconds / 3600 * self.usd_per_hour

    @property
    def peak_bytes(self) -> int | None:
        """The most the process held since the meter started: resident on a CPU, allocated by torch on a GPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_resident_bytes()


def process_age_seconds() -> float:
    """How long this process has run, imports included; 0 where /proc does not say."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:  # noqa: PTH123
            started_ticks = int(stat.read().rpartition(")")[2].split()[19])
            return max(0.0, float(uptime.read().split()[0]) - started_ticks / _CLOCK_TICKS_PER_SECOND)
    except (OSError, ValueError, IndexError):
        return 0.0


_CLOCK_TICKS_PER_SECOND = 100
"""USER_HZ, fixed at 100 in Linux's interface to user space (proc(5))."""
