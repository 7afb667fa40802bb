"""Small saved states for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tenfold.run.checkpoint import save_state

FILES = ("tensors-00001.safetensors", "state.json", "manifest.json")


def save(folder: Path, step: int, keep: int = 9) -> Path:
    """A small state in which every value names its step."""
    tensors = {
        "weights/a": torch.full((3, 2), float(step)),
        "optimizer/0/step": torch.tensor(float(step)),
        "rng/torch": torch.full((8,), step % 256, dtype=torch.uint8),
    }
    return save_state(folder, step, tensors, {"progress": {"step": step}}, keep)


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
