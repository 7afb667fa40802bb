"""Which errors mean that memory ran out."""

from __future__ import annotations

from collections.abc import Iterator

import torch

MEMORY_ALLOCATION = 2
"""cudaErrorMemoryAllocation of the CUDA runtime: what a library or a driver call says that torch's allocator does not
make, such as instantiating a graph."""

CPU_ALLOCATOR = "can't allocate memory"
"""In the message of torch's CPU allocator, which has no exception type of its own."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this error, or one that it came of, is a lack of memory.

    The end of a recording that ran out of memory hides the reason: torch.cuda.graph ends the capture on its way out,
    and where that fails too ("operation failed due to a previous error during capture"), torch.OutOfMemoryError is only
    the context of a torch.AcceleratorError.
    """
    return any(_says_so(link) for link in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == MEMORY_ALLOCATION
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised from or on the way of handling."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
