"""Evidence as the planner reads it, for tests that need to know what it says."""

from __future__ import annotations

from typing import Any

from tenfold.planner.quality import QualityEvidence, QualityMeasured
from tenfold.recipe import Task


def measured(task: Task = "sft", **changes: Any) -> QualityMeasured:
    """A cut that did no harm, on rows of this task."""
    return QualityMeasured.model_validate(
        {
            "task": task,
            "model": "tiny",
            "data": "rows",
            "metric": "loss",
            "beside": "without it",
            "settings": "defaults",
            "difference": -0.01,
            "low": -0.03,
            "high": 0.02,
            "seeds": 3,
            "date": "2026-11-23",
            "source": "nowhere.json",
            **changes,
        }
    )


LORA_MEASURED = QualityEvidence(cuts={"lora": tuple(measured(task) for task in ("classify", "sft", "text"))})
"""lora may be chosen on every task."""
