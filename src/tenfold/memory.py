"""How much memory this process holds and has held, as the operating system counts it. No torch."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
"""Linux: VmRSS is what the process holds now, VmHWM the most it ever held; both in kB of 1,024 bytes. The kernel
adds them up lazily, so they may be some hundred kB off. See proc(5)."""

CLEAR_REFS = Path("/proc/self/clear_refs")
"""Linux: writing 5 sets VmHWM back to VmRSS (since 4.0). See proc(5)."""


def resident_bytes() -> int | None:
    """Bytes this process holds in memory now, pages shared with others included; None except on Linux."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int | None:
    """The most bytes this process has held, since its start or the last reset; None where the system does not say."""
    if sys.platform == "darwin":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, unlike Linux
    return _status_bytes("VmHWM")


def reset_peak_resident() -> bool:
    """Let the peak start again from what is held now; False where that is not permitted, as in some containers."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(values[0]) * 1024 if values else None
