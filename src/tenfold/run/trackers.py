"""TensorBoard, Weights & Biases and MLflow as observers, imported only if the recipe names them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tenfold.errors import InputError
from tenfold.run.events import Event, Observer


def check_tracker(name: str) -> None:
    """Raises InputError if the package of the tracker called `name` is not installed; imports nothing."""
    if find_spec(name) is None:
        raise InputError(_not_installed(name))


def make_tracker(name: str, run_name: str, folder: Path, settings: Mapping[str, Any]) -> Observer:
    """The observer called `name`. Raises InputError if its package is not installed."""
    makers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    try:
        return makers[name](run_name, folder, settings)
    except ImportError as error:
        raise InputError(_not_installed(name)) from error


def _not_installed(name: str) -> str:
    return f"output.trackers: {name} is not installed; pip install {name}"


def scalars(event: Event) -> dict[str, float]:
    """The numbers of an event under the names that trackers group by: train/loss, eval/accuracy, cost/usd."""
    group = {"step": "train", "evaluated": "eval"}.get(event.kind)
    if group is None:
        return {}
    return {
        ("cost/usd" if key == "usd" else f"{group}/{key}"): float(value)
        for key, value in event.values.items()
        if isinstance(value, int | float) and key not in ("step", "total_steps", "eta_seconds")
    }


def _tensorboard(run_name: str, folder: Path, settings: Mapping[str, Any]) -> Observer:
    from torch.utils.tensorboard.writer import SummaryWriter

    @cache
    def writer() -> SummaryWriter:  # it writes a file as soon as it is made: not before there is something to write
        return SummaryWriter(str(folder / "tensorboard"))

    def observe(event: Event) -> None:
        for name, value in scalars(event).items():
            writer().add_scalar(name, value, int(event.values["step"] or 0))
        if event.kind == "finished" and writer.cache_info().currsize:
            writer().close()

    return observe


def _wandb(run_name: str, folder: Path, settings: Mapping[str, Any]) -> Observer:
    import wandb  # type: ignore[import-not-found]

    run = wandb.init(name=run_name, dir=str(folder), config=dict(settings), resume="allow")

    def observe(event: Event) -> None:
        if numbers := scalars(event):
            run.log(numbers, step=int(event.values["step"] or 0))
        if event.kind == "finished":
            run.finish()

    return observe


def _mlflow(run_name: str, folder: Path, settings: Mapping[str, Any]) -> Observer:
    import mlflow  # type: ignore[import-not-found]

    mlflow.start_run(run_name=run_name)
    mlflow.log_params({key: str(value)[:250] for key, value in settings.items()})  # MLflow's limit is 6,000 characters

    def observe(event: Event) -> None:
        if numbers := scalars(event):
            mlflow.log_metrics(numbers, step=int(event.values["step"] or 0))
        if event.kind == "finished":
            mlflow.end_run()

    return observe
