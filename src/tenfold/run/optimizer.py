"""AdamW over what learns."""

from __future__ import annotations

import torch

from tenfold.recipe import TrainWish
from tenfold.rig.rig import Rig
from tenfold.run.adam8bit import Adam8bit


def make_optimizer(rig: Rig, wish: TrainWish) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), fused, or with moments in eight bits; vectors (biases, norms) are not decayed.

    Weights that learn become float32 masters first: bfloat16 has 8 bits of precision and would swallow small updates.
    """
    for _, weight in rig.trainable:
        weight.data = weight.data.float()
    weights = [weight for _, weight in rig.trainable]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": wish.weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if wish.optimizer == "adamw_8bit":
        return Adam8bit(groups, (wish.beta1, wish.beta2), wish.epsilon)
    return torch.optim.AdamW(groups, lr=1.0, betas=(wish.beta1, wish.beta2), eps=wish.epsilon, fused=True)
