"""Rigs and rows for tests, on the tiny models."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from tenfold.data.tokenize import Sample
from tenfold.machine import find_compiler
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.compiling import COMPILES_ON_CPUS, TORCH
from tenfold.rig.loss import classification_loss, next_token_loss
from tenfold.rig.model import looks_back_only
from tenfold.rig.rig import Rig, Source, Task
from tiny import VOCABULARY, tiny_model

COMPILES = TORCH >= COMPILES_ON_CPUS and find_compiler("cpu") is not None
"""Whether layers can be compiled here: older torches do not compile packed rows on a CPU, and none without a C++
compiler."""


def make_rows(task: Task, count: int = 8, seed: int = 0, longest: int = 30) -> list[Sample]:
    """Rows of mixed length with random tokens; on sft rows a random half of the tokens bears loss."""
    draw = random.Random(seed)
    rows: list[Sample] = []
    for line in range(1, count + 1):
        ids = [draw.randrange(4, VOCABULARY) for _ in range(draw.randint(3, longest))]
        mask = bytes([0, *(draw.random() < 0.5 for _ in ids[2:]), 1])
        label = draw.randrange(3) if task == "classify" else None
        rows.append(Sample(ids, None if task == "classify" else mask, label, "rows.jsonl", line))
    return rows


def make_rig(family: str, task: Task, seed: int = 0) -> Rig:
    """A padded rig with 4 rows a micro-batch and no cut."""
    model = tiny_model(family, task, seed=seed)
    return Rig(
        model=model,
        task=task,
        source=Source(family),
        device=torch.device("cpu"),
        layout=PaddedLayout(4, int(model.config.pad_token_id or 0), causal=looks_back_only(model)),
        loss=classification_loss if task == "classify" else next_token_loss,
        labels=("a", "b", "c") if task == "classify" else (),
        new_modules=("score",) if task == "classify" and hasattr(model, "score") else (),
    )


def step_gradient(rig: Rig, rows: Sequence[Sample]) -> tuple[float, torch.Tensor]:
    """The mean loss of one optimizer step and all its gradients as one vector."""
    rig.model.zero_grad(set_to_none=True)
    batches = rig.layout(rows)
    count = sum(batch.loss_count for batch in batches)
    total = 0.0
    for batch in batches:
        loss = rig.loss(rig.model, batch) / count
        loss.backward()
        total += loss.item()
    zero = torch.zeros(())
    gradients = [zero.expand_as(w) if w.grad is None else w.grad for _, w in rig.trainable]
    return total, torch.cat([gradient.flatten() for gradient in gradients]).clone()


def relative_error(expected: torch.Tensor, found: torch.Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found - expected).detach().norm() / expected.detach().norm())
