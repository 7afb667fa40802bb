"""Signals become a wish that the loop reads between steps, so that nothing is torn halfway."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from tenfold.errors import Interrupted, Preempted


class StopRequest:
    """While entered, SIGTERM, SIGINT and SIGHUP only note themselves in `requested`; then the old handlers return.

    A second signal changes nothing: it cannot tear a save that the first one asked for. A signal that was ignored stays
    ignored, as `nohup` and background jobs of a shell expect. Python delivers signals to the main thread only: entered
    in another thread, the object is `inert` and the handlers are left alone.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """The name of the first signal that arrived, such as "SIGTERM"."""
        self.inert = True
        """True while no handler is installed: before, after, or in another thread than the main one."""
        self._before: dict[signal.Signals, Any] = {}
        self._at_once = False

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in _signals():
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                # None: installed outside Python, which signal.signal cannot put back.
                self._before[number] = signal.SIG_DFL if before is None else before
                signal.signal(number, self._note)
        self.inert = False
        return self

    def __exit__(self, *raised: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        self.inert = True

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Inside, a signal ends the block where it stands: for long parts that have nothing to save, such as loading.

        Raises Preempted or Interrupted, at the latest on leaving: a library may swallow what is raised in its midst.
        """
        self._at_once = True
        try:
            self._raise_if_requested()
            yield
        finally:
            self._at_once = False
        self._raise_if_requested()

    def error(self, message: str) -> Preempted | Interrupted:
        """What to raise once the state is saved: Interrupted (130) for SIGINT, else Preempted (75)."""
        return Interrupted(message) if self.requested == "SIGINT" else Preempted(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number).name
        if self._at_once:
            self._at_once = False  # a second signal must not interrupt the way out
            self._raise_if_requested()

    def _raise_if_requested(self) -> None:
        if self.requested is not None:
            raise self.error(
                f"{self.requested} before the first step; nothing was changed: run the same `tenfold train` again"
            )


def _signals() -> tuple[signal.Signals, ...]:
    if sys.platform == "win32":
        return (signal.SIGTERM, signal.SIGINT)
    return (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
