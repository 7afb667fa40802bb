"""A baseline trains as many rows as the run beside it: what the plan foretells is what `tenfold prove` runs."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pytest

import tenfold
from jobs import make_recipe
from tenfold.errors import TenfoldError
from tenfold.planner import baseline_epochs
from tenfold.prove import compare
from tenfold.prove.exchange import DEFAULT_EPOCHS, BaselineRequest
from tenfold.recipe import TrainWish

ROWS = 40
"""Of `make_recipe`: five steps of 8 rows an epoch."""


def asked(train: dict[str, Any], kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[float, int]:
    """The epochs that the baseline's process would be asked for, and the steps that the plan foretells of naive."""
    requests: list[BaselineRequest] = []

    def stop(request: BaselineRequest) -> None:
        requests.append(request)
        raise TenfoldError("enough seen")

    plan = tenfold.plan(make_recipe(folder, train=train))
    dataset, tokenizer = tenfold.api.read_dataset(plan.recipe, tenfold.api.read_shape(plan.recipe.model.name))
    monkeypatch.setattr(compare, f"run_{kind}", stop)
    with pytest.raises(TenfoldError, match="enough seen"):
        compare.measure_baseline(plan, dataset, tokenizer, kind, None)  # type: ignore[arg-type]
    return requests[0].epochs, plan.naive.steps


@pytest.mark.parametrize("kind", ["naive", "peer"])
@pytest.mark.parametrize(
    ("train", "epochs", "steps"),
    [
        ({"epochs": None}, DEFAULT_EPOCHS, 15),
        ({"epochs": 3}, 3.0, 15),
        ({"epochs": 2}, 2.0, 10),
        ({"epochs": 0.5}, 0.5, 3),
        ({"epochs": None, "max_steps": 3, "batch_size": 16}, 1.0, 5),
        ({"epochs": None, "max_steps": 4, "batch_size": 16}, 1 + (16 - 4) / 40, 7),
        ({"epochs": None, "max_steps": 1, "batch_size": 1}, 0.5 / 40, 1),
    ],
)
def test_plan_and_prove_agree(
    kind: str, train: dict[str, Any], epochs: float, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, foretold = asked(train, kind, tmp_path, monkeypatch)
    assert found == pytest.approx(epochs)
    assert foretold == steps == ceil(found * ROWS / 8)


@pytest.mark.parametrize("rows", [1, 7, 40, 1001])
@pytest.mark.parametrize("batch_size", [1, 5, 8, 32, 64])
@pytest.mark.parametrize("max_steps", [1, 2, 100])
def test_steps_are_turned_into_the_same_rows(rows: int, batch_size: int, max_steps: int) -> None:
    """Within one of the baseline's steps, each epoch of which may end with a smaller one."""
    per_epoch = ceil(rows / batch_size)
    seen = sum(min(batch_size, rows - step % per_epoch * batch_size) for step in range(max_steps))
    epochs = baseline_epochs(TrainWish(max_steps=max_steps, batch_size=batch_size), rows)
    steps = ceil(epochs * ceil(rows / 8))
    assert abs(steps - seen / rows * ceil(rows / 8)) <= 1
