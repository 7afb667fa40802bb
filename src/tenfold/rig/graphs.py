"""Micro-batches as CUDA graphs: the host launches a whole forward and backward pass at once.

A layer of a small model, or of a small micro-batch of a large one, computes in less time than the host takes to launch
its kernels. Replaying a recorded graph takes the host out of it, so that micro-batches can be small and no activation
need be recomputed. Reference: CUDA programming guide, "CUDA Graphs"; torch.cuda.graph.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from tenfold.rig.backward import Loss, eager_backward
from tenfold.rig.batch import Batch
from tenfold.rig.tensors import tensors_of

EAGER_CALLS = 2
"""How often a shape runs eagerly before it is recorded: the first calls compile, plan and grow buffers."""

MOST_GRAPHS = 24
"""Recorded shapes at most; further ones run eagerly. Each holds some megabytes beside the memory that all share."""


class RecordingFailed(RuntimeError):
    """A pass could not be recorded; its cause says why. The gradients are as they were."""


class GraphedBackward:
    """`eager_backward`, recorded once per shape of a micro-batch and replayed from then on.

    Needs a CUDA device and a model without host synchronisation. Gradients are the same tensors in every call: they are
    zeroed where the optimizer has dropped them.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded] = {}
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._stream = torch.cuda.Stream()
        self._pool: Any = None

    def __call__(
        self, model: PreTrainedModel, loss: Loss, batch: Batch, loss_tokens: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """As `eager_backward`."""
        key = shape_key(batch)
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        recorded = self._recorded.get(key)
        self._attach_gradients(model)
        if recorded is None and (seen <= EAGER_CALLS or len(self._recorded) >= MOST_GRAPHS):
            # On the stream that records later, because autograd accumulates a gradient on the stream it first met.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                summed = eager_backward(model, loss, batch, loss_tokens, dtype)
            torch.cuda.current_stream().wait_stream(self._stream)
            return summed
        if recorded is None:
            recorded = self._recorded[key] = self._record(model, loss, batch, dtype)
        return recorded.replay(batch, loss_tokens)

    def forget(self) -> None:
        """Let go of all that was recorded, and of its memory: shapes will be others."""
        self._seen.clear()
        self._recorded.clear()
        self._pool = None

    def _attach_gradients(self, model: PreTrainedModel) -> None:
        """Give every weight that learns the gradient tensor that the graphs write to, zeroed where it had none."""
        dropped: list[torch.Tensor] = []
        for weight in model.parameters():
            if not weight.requires_grad:
                continue
            held = self._gradients.get(weight)
            if held is None:
                held = self._gradients[weight] = torch.zeros_like(weight) if weight.grad is None else weight.grad
            elif weight.grad is None:
                dropped.append(held)
            elif weight.grad is not held:
                held.copy_(weight.grad)
            weight.grad = held
        if dropped:
            torch._foreach_zero_(dropped)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]  # one launch, as torch.optim does

    def _record(self, model: PreTrainedModel, loss: Loss, batch: Batch, dtype: torch.dtype) -> _Recorded:
        torch.cuda.synchronize()
        still = cloned(batch)
        loss_tokens = torch.ones((), device=batch.input_ids.device)
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[batch.input_ids.get_device()]
        before = generator.clone_state()
        try:
            # Within a stream of its own, because torch.cuda.graph leaves its stream behind where its own end fails.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                summed = eager_backward(model, loss, still, loss_tokens, dtype)
        except RuntimeError as error:
            generator.graphsafe_set_state(before)  # else it waits for the end of the recording, and draws no more
            raise RecordingFailed(str(error).splitlines()[0]) from error
        self._pool = graph.pool()
        return _Recorded(graph, still, loss_tokens, summed)


class _Recorded:
    def __init__(
        self, graph: torch.cuda.CUDAGraph, batch: Batch, loss_tokens: torch.Tensor, summed: torch.Tensor
    ) -> None:
        self._graph, self._batch, self._loss_tokens, self._summed = graph, batch, loss_tokens, summed

    def replay(self, batch: Batch, loss_tokens: int) -> torch.Tensor:
        """Copy the micro-batch to where the graph reads it, and run."""
        for source, target in zip(tensors_of(batch), tensors_of(self._batch), strict=True):
            target.copy_(source, non_blocking=True)
        self._loss_tokens.fill_(float(loss_tokens))
        self._graph.replay()
        return self._summed.clone()


def shape_key(value: Any) -> Hashable:
    """What a recorded graph depends on: shapes and types of tensors, and every other field but the two counts."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(shape_key(item) for item in value)
    if is_dataclass(value):
        return tuple(shape_key(getattr(value, field.name)) for field in fields(value) if field.name not in COUNTS)
    return value


COUNTS = {"rows", "tokens", "loss_count"}
"""Fields of a batch that count and that no computation reads."""


def cloned(value: Any) -> Any:
    """A copy whose tensors are copies."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(cloned(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: cloned(getattr(value, field.name)) for field in fields(value)})
    return value
