"""The operating system's count of what this process holds."""

from __future__ import annotations

import sys

import pytest

from tenfold import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BLOCK_BYTES = 64 * 2**20


@linux
def test_a_block_shows_in_what_is_held_and_stays_in_the_peak() -> None:
    before = memory.resident_bytes()
    block = bytearray(b"x") * BLOCK_BYTES
    held = memory.resident_bytes()
    assert before is not None
    assert held is not None
    assert held - before > 0.9 * len(block)
    del block
    after, peak = memory.resident_bytes(), memory.peak_resident_bytes()
    assert after is not None
    assert peak is not None
    assert peak > 0.99 * held  # the kernel adds its counts per thread up lazily
    assert held > after


@linux
def test_the_peak_can_start_again() -> None:
    block = bytearray(b"x") * BLOCK_BYTES
    high = memory.peak_resident_bytes()
    del block
    if not memory.reset_peak_resident():
        pytest.skip("this system does not permit the reset")
    low = memory.peak_resident_bytes()
    assert high is not None
    assert low is not None
    assert high - low > 0.5 * BLOCK_BYTES


def test_where_the_system_does_not_say_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert memory.resident_bytes() is None
    assert memory.reset_peak_resident() is False
