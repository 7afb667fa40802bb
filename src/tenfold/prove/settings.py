"""The few settings in which a baseline differs from its library's defaults, and why. No torch."""

from __future__ import annotations

from typing import Any

from tenfold.prove.exchange import DEFAULT_EPOCHS, DEFAULT_SEED, BaselineRequest

NOTES = {
    "report_to": "report_to: none, so that no tracker is written to.",
    "disable_tqdm": "disable_tqdm: nobody watches this process.",
    "save_strategy": "save_strategy: no. The default saves every 500 steps; that time is not counted here.",
    "seed": "seed: the recipe's.",
    "num_train_epochs": "num_train_epochs: the recipe's, or as many rows as its steps go through.",
    "use_cpu": "use_cpu: this machine has no CUDA device.",
}
"""Why each of them is changed; none of them makes a step slower."""


def changed_settings(request: BaselineRequest, has_cuda: bool) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments or SFTConfig beside `output_dir`."""
    settings: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    if request.seed != DEFAULT_SEED:
        settings["seed"] = request.seed
    if request.epochs != DEFAULT_EPOCHS:
        settings["num_train_epochs"] = request.epochs
    if not has_cuda:
        settings["use_cpu"] = True
    return settings
