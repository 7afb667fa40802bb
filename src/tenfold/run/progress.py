"""Progress on stderr: one live line on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import atexit
import json
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tenfold.inert import printable
from tenfold.redact import redact
from tenfold.run.events import Event, Observer

PLAIN_SECONDS = 10.0
"""Seconds between plain lines: a log of an hour's run stays readable."""

LONGEST_LINE = 1000
"""Characters: as long as an error."""


def make_progress(as_json: bool) -> Observer:
    """The observer that fits stderr."""
    if as_json:
        return json_lines
    return LiveLine() if sys.stderr.isatty() else PlainLines()


def json_lines(event: Event) -> None:
    """One JSON object per event."""
    print(redact(json.dumps({"event": event.kind, **event.values})), file=sys.stderr, flush=True)


def step_line(event: Event) -> str:
    """step 120/480  25 %  loss 0.412  8,214 tokens/s  $0.0012  ETA 1:20"""
    v = event.values
    done, total = int(v["step"] or 0), int(v["total_steps"] or 1)
    parts = [
        f"step {done}/{total}",
        f"{100 * done // total:3d} %",
        f"loss {float(v['loss'] or 0):.4f}",
        f"{float(v['tokens_per_second'] or 0):,.0f} tokens/s",
        "$-" if v.get("usd") is None else f"${float(v['usd'] or 0):.4f}",
        f"ETA {clock(float(v['eta_seconds'] or 0))}",
    ]
    return "  ".join(parts)


def other_line(event: Event) -> str:
    """Any other event as one line."""
    values = "  ".join(
        f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in event.values.items()
        if key != "text"
    )
    return printable(f"{event.values.get('text', event.kind)}{'  ' if values else ''}{values}", LONGEST_LINE)


def clock(seconds: float) -> str:
    """3725 -> 1:02:05"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class PlainLines:
    """A line for every event, steps at most every PLAIN_SECONDS."""

    def __init__(self) -> None:
        self._shown_at = float("-inf")

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            last = event.values["step"] == event.values["total_steps"]
            if not last and time.monotonic() - self._shown_at < PLAIN_SECONDS:
                return
            self._shown_at = time.monotonic()
        print(step_line(event) if event.kind == "step" else other_line(event), file=sys.stderr, flush=True)


class LiveLine:
    """The newest step in place, other events above it."""

    def __init__(self) -> None:
        self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=8)
        atexit.register(self._live.stop)  # a run that fails says nothing more, and the cursor has to come back

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            self._live.start()
            self._live.update(Text(step_line(event)))
        elif event.kind == "finished":
            self._live.stop()
        else:
            self._live.console.print(Text(other_line(event)))
