"""What torch's allocator says was alive at once."""

from __future__ import annotations

from torch.profiler import profile


def highest_held_bytes(found: profile) -> int:
    """The most bytes that were held at once while a profile with memory was taken, beyond what was there before."""
    events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = highest = 0
    for _, change in changes:
        held += change
        highest = max(highest, held)
    return highest
