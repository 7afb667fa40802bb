"""What the receipt holds a measurement against."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tenfold
from jobs import make_recipe
from tenfold.run.account import _measurements
from tenfold.run.run import Run


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_peaks_are_compared_like_with_like(kind: str, tmp_path: Path) -> None:
    """torch's allocator, read on a GPU, sees neither the CUDA context nor what it holds in vain; resident memory
    has it all."""
    plan = tenfold.plan(make_recipe(tmp_path))
    plan = plan.model_copy(update={"machine": plan.machine.model_copy(update={"vendor_kind": kind})})
    run: Any = SimpleNamespace(
        progress=SimpleNamespace(train_seconds=1.0, step=1, tokens=1, loss_tokens=1),
        meter=SimpleNamespace(peak_bytes=1, idle_bytes=0, wall_seconds=1.0, usd=None),
    )
    peak = next(row for row in _measurements(plan, cast(Run, run)) if row.name == "peak_memory_bytes")
    unseen = plan.prediction.bytes_by_kind["libraries"] + plan.prediction.bytes_by_kind["fragmentation"]
    assert unseen > 0
    assert peak.predicted == plan.prediction.peak_bytes - (unseen if kind == "cuda" else 0)
