"""Does a row count? Fast and wrong is not fast."""

from __future__ import annotations

from typing import Any

LOSS_TOLERANCE = {"bf16": 1e-3, "fp8": 5e-3}
"""Relative to the float32 loss. nf4 changes the model: its distance is shown, not judged."""

LEAST_COSINE = {"bf16": 0.999, "fp8": 0.98}
"""Between an adapter's gradient and the float32 one."""


def gate(
    loss: float,
    reference: float,
    precision: str = "bf16",
    least_cosine: float | None = None,
    without_gradient: int = 0,
) -> dict[str, Any]:
    """A row's step-0 loss against float32's, its worst adapter's cosine, its weights without gradient after step 2."""
    distance = abs(loss - reference) / abs(reference)
    faults = []
    if not distance <= LOSS_TOLERANCE.get(precision, float("inf")):
        faults.append(f"loss {loss:.5f} is {distance:.1e} from {reference:.5f}")
    if least_cosine is not None and not least_cosine >= LEAST_COSINE.get(precision, -1.0):
        faults.append(f"cosine {least_cosine:.4f}")
    if without_gradient:
        faults.append(f"{without_gradient} weights without gradient")
    return {"passed": not faults, "relative_loss_distance": distance, "faults": faults}
