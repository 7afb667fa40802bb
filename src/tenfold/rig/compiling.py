"""The fuse cut on a GPU: merged products, compiled layers, recorded passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from threading import Thread
from typing import Any

import torch
import torch._dynamo.config as tracing
import torch._functorch.config as partitioning
import torch.fx.experimental._config as symbols
from torch._dynamo import mark_static, mark_static_address
from torch._inductor.async_compile import maybe_warm_pool
from torch._inductor.codecache import CacheBase, torch_key
from torch._inductor.compile_fx import compile_fx
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.errors import InputError, NoEffect
from tenfold.rig.backward import Loss
from tenfold.rig.batch import Batch
from tenfold.rig.chunked_loss import ChunkedLoss, ChunkLoss, loss_in_one_pass
from tenfold.rig.graphs import GraphedBackward
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.merging import merge_products
from tenfold.rig.packing import PackedLayout
from tenfold.rig.rig import Rig

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

COMPILES_ON_CPUS = (2, 13)
"""With torch 2.11 gradients of what comes before attention are zero, in every backend of torch.compile; with 2.13 they
are right (tests/rig/test_compiling.py). On GPUs, where plans compile, attention is another and both are right."""

MOST_COMPILATIONS = 64
"""Of layers in one process; torch's own limit is 8, after which layers run as written. A rig has one to four, and as
many for passes without gradients; but transformers has one function for the layers of all models, so that those of all
rigs count together. Older torches know no limit for one function."""


def compile_rig(rig: Rig) -> Rig:
    """The rig with merged products and compiled layers; on a GPU also with steady shapes and recorded passes.

    One compilation serves all layers of a kind, whose weights are its inputs, and micro-batches of all sizes. Raises
    NoEffect without layers.
    """
    blocks = [module for module in rig.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise NoEffect(f"fuse: {type(rig.model).__name__} has no layers to compile one by one")
    if rig.device.type == "cpu" and isinstance(rig.layout, PackedLayout) and TORCH < COMPILES_ON_CPUS:
        raise InputError(
            f"fuse: torch {torch.__version__} loses gradients where it compiles packed attention on a CPU; write"
            " compile=False, or use torch 2.13"
        )
    groups = merge_products(rig) if rig.adapter is not None else []
    for part in frozen_parts(rig.model):
        # Then the compiler takes them for parameters: free to read again in the backward pass. Else it may count a
        # weight that is made dense as cheaper to keep than what it was made of. And their sizes are numbers where those
        # of micro-batches are symbols: torch 2.11 cannot trace nf4's otherwise.
        mark_static_address(part)
        mark_static(part)
    for block in blocks:
        block.forward = compiled(block.forward)
    if any(weight.requires_grad for weight in blocks[0].parameters()):
        blocks[0].register_forward_pre_hook(_ask_for_gradient)
    facts = [f"fuse: {len(blocks)} layers compiled, {sum(groups)} adapted products merged into {len(groups)}"]
    loss = rig.loss
    if isinstance(loss, ChunkedLoss):
        loss = replace(loss, chunk_loss_and_gradient=_compiled_loss())
    rig = replace(rig, loss=ForAllSizes(loss))
    if rig.device.type == "cuda" and isinstance(rig.layout, PackedLayout):
        rig = replace(rig, layout=replace(rig.layout, steady=True), backpropagate=GraphedBackward())
        facts.append("fuse: micro-batches of one shape recorded as CUDA graphs")
    return replace(rig, compiled=True, facts=(*rig.facts, *facts))


def _ask_for_gradient(block: torch.nn.Module, args: tuple[Any, ...]) -> None:
    """Of what a block reads, like those above it: a graph of its own would take as long to compile as that of all
    others, to save a layer's gradient of queries, keys and values."""
    if args and torch.is_grad_enabled():
        args[0].requires_grad_()


def compiled(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A layer's `forward`, or that of a part of it, compiled when it is called, for what it is called with."""
    limited = "recompile_limit" in signature(torch.compile).parameters
    limit: dict[str, Any] = {"recompile_limit": MOST_COMPILATIONS} if limited else {}
    return torch.compile(forward, backend=lean_inductor, **limit)


@dataclass(frozen=True)
class ForAllSizes:
    """A loss. What is compiled while micro-batches of mixed lengths pass has numbers of tokens and rows as symbols.

    By default torch compiles for the numbers that it meets, again with some of them as symbols, and after some times
    (`recompile_limit`) not at all: minutes of compiling, and then layers as written. Where all rows have one length,
    sizes are few: compiled as numbers they take two thirds of the time.
    """

    loss: Loss

    def __call__(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """As the loss."""
        with ExitStack() as configured:
            if not batch.one_length:
                # Floats stay numbers; and two sizes that are equal once need not be the next time.
                configured.enter_context(tracing.patch(assume_static_by_default=False, specialize_float=True))
                configured.enter_context(symbols.patch(use_duck_shape=False))  # pyright: ignore[reportAttributeAccessIssue]
            return self.loss(model, batch)


def _compiled_loss() -> ChunkLoss:
    compiled = torch.compile(loss_in_one_pass)

    def chunk_loss(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mark_static(logits, 1)  # the vocabulary
        return compiled(logits, targets)

    return chunk_loss


def frozen_parts(model: torch.nn.Module) -> list[torch.Tensor]:
    """What merged products hold of frozen weights."""
    groups = [module.group for module in model.modules() if isinstance(module, AdaptedLinear)]
    return [part for group in groups if group is not None for part in group.parts]


def start_compiler() -> None:
    """Start what the compiler needs, beside this thread: the processes that compile kernels, if there are none, and the
    hashes of torch's and triton's own files, by which what was compiled once is found again.

    Until the processes are ready kernels are compiled one by one in this process; torch starts them with its own
    backend only, which comes after layers are compiled with ours. Hashing takes 0.4 s and lets other threads run.
    """
    maybe_warm_pool()
    Thread(target=_hash_compilers, daemon=True).start()


def _hash_compilers() -> None:
    torch_key()
    CacheBase.get_system()


def lean_inductor(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """torch's compiler, keeping of a layer only what no cheap operation can make again in the backward pass.

    By default it also keeps what a matrix product of the backward pass reads, such as the inputs of adapters; those are
    an addition, a multiplication and a norm away from what is kept anyway, and a quarter of all bytes or more.

    What was compiled once is found again in torch's cache, autograd functions included. Torch leaves those out by
    default (pytorch/pytorch#149751): both passes of ours are in the traced graph, and so in the key, in full.
    """
    with partitioning.patch(
        ban_recompute_materialized_backward=False, autograd_cache_allow_custom_autograd_functions=True
    ):
        return compile_fx(graph, inputs)  # type: ignore[arg-type]
