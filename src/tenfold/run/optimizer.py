"""AdamW over what learns."""

from __future__ import annotations

from typing import Any

import torch

from tenfold.errors import InputError
from tenfold.recipe import TrainWish
from tenfold.rig.rig import Rig
from tenfold.rig.rows import row_modules
from tenfold.rig.warm.layers import is_block
from tenfold.run.adam8bit import SMALL, Adam8bit
from tenfold.run.schedule import Schedule


def make_optimizer(rig: Rig, wish: TrainWish) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), fused, or with moments in eight bits; vectors (biases, norms) are not decayed.

    Weights that learn become float32 masters first: bfloat16 has 8 bits of precision and would swallow small updates.
    Or matrices become bfloat16 with eight bits more in the optimizer (run/split_master.py), which products read as they
    are: where all weights learn and products compute in bfloat16, else InputError. Single rows of embeddings and new
    blocks are groups of their own.
    """
    splits = wish.optimizer == "adamw_8bit_split"
    if splits and (rig.dtype != torch.bfloat16 or rig.adapter is not None):
        reason = "this run computes in float32" if rig.adapter is None else "adapters are not worth it"
        raise InputError(f"train.optimizer: adamw_8bit_split keeps weights in bfloat16, and {reason}; write adamw_8bit")
    rows = tuple(f"{name}." for name in row_modules(rig.model))
    blocks = tuple(f"{name}." for name in rig.new_modules if is_block(rig.model.get_submodule(name)))
    split: list[torch.nn.Parameter] = []
    for name, weight in rig.trainable:
        if splits and weight.ndim >= 2 and weight.numel() >= SMALL and _part(name, rows, blocks) != "rows":
            split.append(weight)
        else:
            weight.data = weight.data.float()
    groups: list[dict[str, Any]] = []
    for part in ("rest", "blocks", "rows"):
        for decay, wide in ((wish.weight_decay, True), (0.0, False)):
            weights = [w for name, w in rig.trainable if _part(name, rows, blocks) == part and (w.ndim >= 2) == wide]
            if weights:
                groups.append({"params": weights, "weight_decay": decay, "part": part})
    if wish.optimizer != "adamw":
        optimizer = Adam8bit(groups, (wish.beta1, wish.beta2), wish.epsilon, compiled=rig.compiled)
        for weight in split:
            optimizer.split(weight)
        return optimizer
    return torch.optim.AdamW(groups, lr=1.0, betas=(wish.beta1, wish.beta2), eps=wish.epsilon, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Give each group of `make_optimizer` its rate of this step.

    While what is new learns alone, the others lose their gradients: neither weights nor moments move.
    """
    for group in optimizer.param_groups:
        rows = group["part"] == "rows"
        group["lr"] = schedule.rows_learning_rate_at(step) if rows else schedule.learning_rate_at(step)
        if step < schedule.new_alone_steps and group["part"] == "rest":
            for weight in group["params"]:
                weight.grad = None


def _part(name: str, rows: tuple[str, ...], blocks: tuple[str, ...]) -> str:
    if name.startswith(blocks):
        return "blocks"
    return "rows" if name.startswith(rows) and name.endswith(".rows") else "rest"
