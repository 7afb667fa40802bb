"""The operating system's count of what a process holds, in new processes: a heap that has been used may have room."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tenfold import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BLOCK_BYTES = 64 * 2**20

SHARE = 0.9
"""Of the block, which must show: the kernel adds its counts per processor up lazily."""

PROCESS = """
import json, mmap, sys
from tenfold import memory

def look():
    counts.append((memory.resident_bytes(), memory.peak_resident_bytes()))

size, written, counts = int(sys.argv[1]), int(sys.argv[2]), []
memory.resident_bytes()  # what the first reading itself takes is there before
look()
block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for place in range(0, written, mmap.PAGESIZE):
    block[place] = 1
look()
block.close()
look()
permitted = memory.reset_peak_resident()
look()
print(json.dumps([permitted, counts]))
"""
"""Maps a block, which no earlier use of memory can have left room for, writes to its pages, and gives it back."""


def blocks_held(written_bytes: int) -> tuple[bool, list[float], list[float]]:
    """Whether the peak can be reset; then what is held and the peak, before the block, with it, after it, and after
    the reset, in blocks beyond what was held before."""
    command = [sys.executable, "-c", PROCESS, str(BLOCK_BYTES), str(written_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    permitted, counts = json.loads(done.stdout)
    base = counts[0][0]
    held, peak = ([(count[which] - base) / BLOCK_BYTES for count in counts] for which in (0, 1))
    return permitted, held, peak


@linux
def test_a_block_shows_in_what_is_held_and_stays_in_the_peak() -> None:
    _, held, peak = blocks_held(BLOCK_BYTES)
    assert held[1] > SHARE
    assert peak[1] > SHARE
    assert abs(held[2]) < 1 - SHARE
    assert peak[2] > SHARE


@linux
def test_a_block_that_is_not_written_to_shows_in_neither() -> None:
    """The control: address space is not memory."""
    _, held, peak = blocks_held(0)
    assert max(map(abs, held + peak)) < 1 - SHARE


@linux
def test_the_peak_can_start_again() -> None:
    permitted, _, peak = blocks_held(BLOCK_BYTES)
    if not permitted:
        pytest.skip("this system does not permit the reset")
    assert peak[2] > SHARE
    assert abs(peak[3]) < 1 - SHARE


def test_where_the_system_does_not_say_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert memory.resident_bytes() is None
    assert memory.reset_peak_resident() is False
