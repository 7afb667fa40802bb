"""What can go wrong, and the exit code each kind leaves behind.

Every error that a user can cause or cure is a `TenfoldError` with a one-line message: what was found, where, and what
to write instead. The command line prints that line and exits with `exit_code`; nothing else reaches the user as a
traceback.
"""

from __future__ import annotations

from typing import ClassVar

from tenfold.redact import redact


class TenfoldError(Exception):
    """A failure with one line for the user and an exit code for the caller."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message without secrets: others' messages are part of it, and their addresses and headers of theirs."""
        return redact(super().__str__())


class InputError(TenfoldError):
    """The recipe, the data, a path or the command line is not usable as given."""

    exit_code: ClassVar[int] = 2


class NoPlanFits(TenfoldError):
    """No combination of cuts and machines meets the wishes; the message names the nearest wish that can be met."""

    exit_code: ClassVar[int] = 3


class OutOfMemory(TenfoldError):
    """The machine's memory is exhausted and no smaller setting is left to try."""

    exit_code: ClassVar[int] = 4


class BudgetReached(TenfoldError):
    """The budget in dollars or hours is spent; a checkpoint is saved and `tenfold train` continues it."""

    exit_code: ClassVar[int] = 5


class Preempted(TenfoldError):
    """SIGTERM: what was learned so far is saved. 75 is EX_TEMPFAIL in BSD's sysexits.h: try again later."""

    exit_code: ClassVar[int] = 75


class Interrupted(TenfoldError):
    """SIGINT: what was learned so far is saved. 130 is the shell's 128 + SIGINT."""

    exit_code: ClassVar[int] = 130


class NoEffect(InputError):
    """A cut was asked for that changes nothing on this model: a paid-for no-op would be a false receipt."""


class LossSpike(TenfoldError):
    """The loss of a step was far above those before, and the recipe says stop; a checkpoint is saved behind it."""


class NotFinite(TenfoldError):
    """The loss or a gradient is NaN or Inf; training stopped before the update."""
