"""Tensors from files to a device, in order, read a little ahead by threads of their own.

For a GPU the threads read into page-locked buffers, which its copy engine takes without the host's help: what the
tensors before are made into is computed meanwhile. A mapped file, by contrast, is read page by page as it is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

CHUNK_BYTES = 8 * 2**20
"""Read at once: long enough that threads seldom wait for each other, and a multiple of every number's size."""

READERS = {"cpu": 1, "cuda": 8}
"""Threads. One copies 3 to 8 GB/s out of the system's cache; a PCI Express 5 link takes 50, a CPU's own work less."""

BUFFERS_A_READER = 2
"""One is read while the other is copied out of."""


@dataclass(frozen=True)
class Extent:
    """Where a tensor stands in a file."""

    file: Path
    start: int
    """Its first byte."""
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return prod(self.shape) * self.dtype.itemsize


def read_tensors(
    extents: Sequence[Extent], device: torch.device, dtype: torch.dtype
) -> Generator[torch.Tensor, None, None]:
    """Each tensor in turn on `device`, those of floating point in `dtype`. Nothing else holds their memory.

    Host memory: `BUFFERS_A_READER` chunks for each reader, and on a CPU the tensor. On a GPU: the tensor, and where the
    file has another format what it is made from. Raises OSError if a file cannot be read or ends too early.
    """
    with _Reads(extents, device) as reads:
        for extent in extents:
            yield _read(extent, reads, device, dtype if extent.dtype.is_floating_point else extent.dtype)


def _read(extent: Extent, reads: _Reads, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    # Made another format by a CPU as it is copied out of a buffer; by a GPU afterwards, since a copy to it that is also
    # a conversion would be converted by the host, in memory of its own.
    whole = torch.empty(prod(extent.shape), dtype=dtype if device.type == "cpu" else extent.dtype, device=device)
    done = 0
    while done < len(whole):
        with reads.next() as piece:
            numbers = piece.view(extent.dtype)
            whole[done : done + len(numbers)].copy_(numbers, non_blocking=True)
        done += len(numbers)
    return whole.view(extent.shape).to(dtype)


class _Reads:
    """All chunks of some tensors in order, a few of them read ahead."""

    def __init__(self, extents: Sequence[Extent], device: torch.device) -> None:
        self._chunks = deque((extent, start) for extent in extents for start in range(0, extent.nbytes, CHUNK_BYTES))
        self._pool = ThreadPoolExecutor(READERS[device.type], thread_name_prefix="tenfold weights")
        self._begun: deque[tuple[_Buffer, Future[int]]] = deque()
        size = min(CHUNK_BYTES, max((extent.nbytes for extent in extents), default=0))
        for _ in range(min(READERS[device.type] * BUFFERS_A_READER, len(self._chunks))):
            self._begin(_Buffer(size, device))

    def __enter__(self) -> _Reads:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def next(self) -> Generator[torch.Tensor]:
        """The bytes of the next chunk, until the block ends."""
        buffer, read = self._begun.popleft()
        yield buffer.numbers[: read.result()]
        buffer.copied()
        self._begin(buffer)

    def _begin(self, buffer: _Buffer) -> None:
        if self._chunks:
            self._begun.append((buffer, self._pool.submit(buffer.fill, *self._chunks.popleft())))


class _Buffer:
    """Host memory that one thread fills while nobody copies out of it."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.numbers = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._memory = self.numbers.numpy().data
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def copied(self) -> None:
        """What is in it has been asked for by everyone; on a GPU the copy may still be under way."""
        if self._copied is not None:
            self._copied.record()

    def fill(self, extent: Extent, start: int) -> int:
        """Read bytes of a tensor from its `start` on, a chunk at most; how many."""
        if self._copied is not None:
            self._copied.synchronize()
        wanted = self._memory[: min(len(self._memory), extent.nbytes - start)]
        with extent.file.open("rb", buffering=0) as file:
            file.seek(extent.start + start)
            done = 0
            while done < len(wanted):
                count = file.readinto(wanted[done:])
                if not count:
                    raise OSError(f"{extent.file}: ends within a tensor")
                done += count
        return done
