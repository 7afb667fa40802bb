"""Which activations to keep, to recompute or to offload: solved for the bytes that are free, cheapest first."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from tenfold.cuts import Checkpoint
from tenfold.job import Job, footprint

HOST_SHARE = 0.5
"""How much of a GPU's memory may stand in its host's. Computers that are rented with one GPU have at least as much
memory as it (16 GB beside the T4 of AWS's g4dn.xlarge, the least there is); pinned memory comes in powers of two."""


@dataclass(frozen=True)
class Room:
    """What a job may hold, and what it would."""

    peak: Callable[[int, int], float]
    """Bytes by numbers of recomputed and of offloaded blocks."""
    bytes: float

    def fits(self, recomputed: int, offloaded: int) -> bool:
        """Whether it would be enough."""
        return self.peak(recomputed, offloaded) <= self.bytes


def solve_checkpoint(
    job: Job, room: Room, beside: tuple[int, int], seconds: Callable[[Checkpoint], float]
) -> Checkpoint | None:
    """The cheapest checkpoint with which the job's peak stays within `room`; None if there is none.

    `beside`: how many blocks can be copied beside a forward pass, and beside a backward one, at no cost; `seconds` of a
    run with a checkpoint. Blocks are alike, so only their numbers count, and seconds grow evenly with either number but
    for few bends: copies cost nothing until they take as long as the forward pass beside which they are made, then
    those of one pass, then those of both. So numbers of offloaded blocks are tried at these bends and where as few as
    possible are offloaded; for each of them as few blocks are recomputed as fit, or, where all are one or the other, as
    many as bend.
    """
    layers, most = job.shape.layers, most_offloaded(job)
    bends = {min(most, count + more) for count, more in product(beside, (0, 1))} if most else set[int]()
    offloads = {0, *bends}
    if most:
        offloads |= {1, most, _fewest(most, lambda n: room.fits(0, n)),
                     _fewest(most, lambda n: room.fits(layers - 1 - n, n))}  # fmt: skip
    found: list[tuple[float, int, int]] = []
    for offloaded in offloads:
        others = layers - 1 - offloaded  # with so many recomputed, the last block alone is kept
        fewest = max(_fewest(others, lambda count, n=offloaded: room.fits(count, n)), 0 if offloaded else 1)
        for recomputed in {fewest, others + 1, layers, *(layers - count for count in bends)}:
            asked = recomputed == fewest or recomputed > others
            if asked and room.fits(recomputed, offloaded):
                found.append((seconds(Checkpoint(recomputed, offloaded)), offloaded, recomputed))
    if not found:
        return None
    _, offloaded, recomputed = min(found)
    return Checkpoint(recomputed, offloaded)


TILES = 8
"""Of feed-forward parts, where a plan tiles them: what is widest in a block then takes an eighth, and is no longer most
of it; frozen weights in few bits are made dense for every tile."""


def tiled_checkpoints(job: Job) -> tuple[Checkpoint, ...]:
    """Those to try, in their order, where no other fits: all blocks recomputed in tiles, their inputs here or away."""
    if not can_tile(job):
        return ()
    layers, most = job.shape.layers, most_offloaded(job, footprint(job, job.largest).input)
    return tuple(Checkpoint(layers, offloaded, TILES) for offloaded in sorted({0, most}))


def can_tile(job: Job) -> bool:
    """Decoders have their feed-forward part as a module of its own; random numbers would be drawn twice."""
    return job.shape.kind == "decoder" and not job.adapter_dropout and not job.shape.hidden_dropout


def _fewest(most: int, enough: Callable[[int], bool]) -> int:
    """The least number up to `most` that is enough, or `most`, where more are never worse."""
    return bisect_left(range(most), True, key=enough)


def most_offloaded(job: Job, block_bytes: float | None = None) -> int:
    """Blocks whose `block_bytes`, or all that they keep, have room in host memory. On a CPU that is all there is."""
    if job.machine.vendor_kind == "cpu":
        return 0
    each = footprint(job, job.largest).block if block_bytes is None else block_bytes
    return min(job.shape.layers - 1, int(HOST_SHARE * job.machine.memory_bytes / each))
