"""What is written and merged after the run must be what was trained: tried before it, on adapters that are not zero."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from transformers.pytorch_utils import Conv1D

from tenfold.data import Sample
from tenfold.export.adapter import place_adapter, read_tensors, write_adapter
from tenfold.export.merge import merged_weight
from tenfold.receipt import Finding
from tenfold.rig.attention import unplanned_attention
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.loss import model_inputs
from tenfold.rig.precision import autocast
from tenfold.rig.probe import outputs_differ
from tenfold.rig.rig import Rig
from tenfold.rig.stored_linear import StoredLinear

NOISE = 0.02
"""Standard deviation of the trial's B: that of a transformer's own weights (0.02 at their start), so that it shows."""


def export(rig: Rig, rows: Sequence[Sample]) -> Finding:
    """Logits of the adapted model against those after a round trip through its files, and merged into the base."""
    layers = [module for module in rig.model.modules() if isinstance(module, AdaptedLinear)]
    if not layers:
        return Finding(check="export", verdict="ok", text="no adapter: the model is written as it is")
    if any(isinstance(layer.base, StoredLinear) or layer.group is not None for layer in layers):
        text = "left to `tenfold merge`, which compares a quantized or compiled model's logits"
        return Finding(check="export", verdict="left_out", text=text)
    with _trial_adapter(layers):
        expected = logits(rig, rows[:2])
        try:
            with TemporaryDirectory() as folder:
                write_adapter(rig, Path(folder), "")
                written = read_tensors(Path(folder))
        except (OSError, SafetensorError) as error:
            text = f"no place to write an adapter on trial ({str(error).splitlines()[0]})"
            return Finding(check="export", verdict="left_out", text=text)
        for layer in layers:
            torch.nn.init.zeros_(layer.lora_B)
        place_adapter(rig, written, Path("the adapter as written"))
        difference = outputs_differ(expected, logits(rig, rows[:2]))
        if difference:
            text = f"the adapter is not what it was once it is written and read again ({difference})"
            return Finding(check="export", verdict="refusal", text=text)
        with _merged(layers):
            difference = outputs_differ(expected, logits(rig, rows[:2]), rig.dtype)
    if difference:
        text = f"the merged model's logits differ from the adapter's ({difference})"
        return Finding(check="export", verdict="refusal", text=text)
    text = f"{len(layers)} adapted layers give the same logits written and read again, and merged"
    return Finding(check="export", verdict="ok", text=text)


@torch.no_grad()
def logits(rig: Rig, rows: Sequence[Sample]) -> list[torch.Tensor]:
    """Of each micro-batch, without dropout."""
    training = rig.model.training
    rig.model.eval()
    with autocast(rig.device, rig.dtype), unplanned_attention():
        found = [rig.model(**model_inputs(batch.to(rig.device))).logits.float() for batch in rig.layout(rows)]
    rig.model.train(training)
    return found


@contextmanager
def _trial_adapter(layers: Sequence[AdaptedLinear]) -> Generator[None]:
    """Other values in every B while inside; afterwards A and B are, bit for bit, what they were."""
    before = [(layer.lora_A.detach().clone(), layer.lora_B.detach().clone()) for layer in layers]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for layer in layers:
                noise = torch.randn(layer.lora_B.shape, generator=generator)
                layer.lora_B.copy_(NOISE * noise)
        yield
    finally:
        with torch.no_grad():
            for layer, (a, b) in zip(layers, before, strict=True):
                layer.lora_A.copy_(a)
                layer.lora_B.copy_(b)


@contextmanager
def _merged(layers: Sequence[AdaptedLinear]) -> Generator[None]:
    """Each layer computes with its merged weight, made when it is called: one at a time in memory."""
    try:
        for layer in layers:
            layer.forward = partial(_merged_product, layer)
        yield
    finally:
        for layer in layers:
            del layer.forward


def _merged_product(layer: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    weight = merged_weight(layer)
    return F.linear(x.to(weight.dtype), weight.T if isinstance(layer.base, Conv1D) else weight, layer.bias)
