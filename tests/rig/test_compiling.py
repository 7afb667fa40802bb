"""Compiled layers: the same gradients, and of the activations no more than the formula counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from typing import Literal

import pytest
import torch
import torch._dynamo.config as tracing
from torch._dynamo.utils import counters

from rigs import COMPILES, make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.rig import compiling, ragged
from tenfold.rig.rig import Rig
from tenfold.rig.stored_linear import StoredLinear

Storage = Literal["fp8", "int8", "nf4"]
Compute = Literal["bf16", "fp8"]

pytestmark = pytest.mark.skipif(not COMPILES, reason="this torch does not compile packed rows, or finds no compiler")

SHORT = make_rows("sft", count=1, longest=6)


@pytest.fixture
def only_compiled() -> Iterator[None]:
    """Compiled so often, by other tests too, that torch would run it as written from then on: here that is an error."""
    torch._dynamo.reset()
    with tracing.patch(fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


def compiled(family: str, fuse: Fuse, storage: Storage | None = None, compute: Compute = "bf16", rank: int = 4) -> Rig:
    rig = make_rig(family, "sft")
    torch.manual_seed(0)
    quantize = () if storage is None else (Quantize(storage),)
    rig = on_rig((*quantize, LoRA(rank, alpha=8.0), Pack(tokens=300)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return on_rig((fuse,), replace(rig, frozen_compute=compute))


@pytest.mark.usefixtures("only_compiled")
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_compiled_layers_give_the_same_gradients(family: str) -> None:
    rows = make_rows("sft")
    _, gradient = step_gradient(compiled(family, Fuse(loss_rows=300)), rows)
    rig = compiled(family, Fuse(loss_rows=300, compile=True))
    assert any("3 layers compiled, 21 adapted products merged into 12" in fact for fact in rig.facts)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) < 1e-4
    with torch.no_grad():
        next(weight for name, weight in rig.trainable if "lora_B" in name).mul_(1.1)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-3


def kept_sizes(rig: Rig) -> list[int]:
    """Elements of all numbers that the forward pass of one short row keeps beside the model's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in rig.model.state_dict().values()}
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for batch in rig.layout(SHORT):
            rig.loss(rig.model, batch)
    return sizes


@pytest.mark.usefixtures("only_compiled")
@pytest.mark.parametrize("compute", ["bf16", "fp8"])
@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_no_dense_weight_is_kept_for_the_backward_pass(storage: Storage, compute: Compute) -> None:
    """Nor its codes in another shape: rows of 32 and of 64 weights, of which nf4 has blocks of 64."""
    rig = compiled("llama", Fuse(loss_rows=300, compile=True), storage, compute)
    largest = max(m.out_features * m.in_features for m in rig.model.modules() if isinstance(m, StoredLinear))
    graphs = counters["stats"]["unique_graphs"]
    sizes = kept_sizes(rig)
    assert counters["stats"]["unique_graphs"] > graphs
    tokens = len(SHORT[0].input_ids)
    widest = 2 * rig.model.config.intermediate_size
    assert max(sizes) <= tokens * widest
    assert largest > 2 * tokens * widest  # the control: a dense weight would not go unseen


@pytest.mark.skipif("recompile_limit" not in signature(torch.compile).parameters, reason="this torch has one limit")
@pytest.mark.usefixtures("only_compiled")
def test_layers_are_compiled_whatever_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second rig of a process, though the layers of the first are as many as torch's own limit, here one."""
    monkeypatch.setattr(compiling, "lean_inductor", lambda graph, inputs: graph)
    with tracing.patch(recompile_limit=1):
        for rank in (1, 2):
            rig = compiled("llama", Fuse(loss_rows=300, compile=True), rank=rank)
            graphs = counters["stats"]["unique_graphs"]
            for batch in rig.layout(SHORT):
                rig.loss(rig.model, batch)
            assert counters["stats"]["unique_graphs"] > graphs


@pytest.mark.usefixtures("only_compiled")
@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_weights_have_sizes_that_are_numbers_whatever_micro_batches_have(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(compiling, "lean_inductor", note)
    torch._dynamo.reset()
    rig = compiled("llama", Fuse(loss_rows=64, compile=True), storage)
    for batch in rig.layout(make_rows("sft", count=5, longest=60)):
        rig.loss(rig.model, batch)
    read = [node.meta["example_value"] for node in graphs[0].graph.nodes if node.op == "placeholder"]
    symbolic = {tensor.dtype for tensor in read if isinstance(tensor, torch.Tensor) and not all_numbers(tensor)}
    codes = {"int8": torch.int8, "nf4": torch.uint8}[storage]
    assert codes in {tensor.dtype for tensor in read if isinstance(tensor, torch.Tensor)}
    assert codes not in symbolic
    assert symbolic, "the control: sizes of micro-batches are symbols"


def all_numbers(tensor: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape)


def by_mask(query, key, value, starts, *others, scale, window_size):
    """What torch's variable-length kernel computes on a GPU: causal, each row within itself. [T, heads, D]."""
    places = torch.arange(len(query), dtype=torch.int32)
    row = torch.searchsorted(starts, places, right=True)
    mask = (row[:, None] == row) & (places[:, None] >= places)
    heads = query.shape[1] // key.shape[1]
    q, k, v = (state.transpose(0, 1) for state in (query, *(s.repeat_interleave(heads, 1) for s in (key, value))))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1)


@pytest.mark.parametrize("symbolic", [True, False])
def test_one_compilation_serves_micro_batches_of_all_sizes(symbolic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all layers, and of the loss. The control: sizes as numbers, torch.compile's default."""
    monkeypatch.setattr(ragged, "_varlen", by_mask)
    monkeypatch.setattr(compiling, "lean_inductor", lambda graph, inputs: graph)
    torch._dynamo.reset()
    rig = compiled("llama", Fuse(loss_rows=64, compile=True))
    rig = replace(rig, layout=replace(rig.layout, tokens=256, steady=True))
    if not symbolic:
        rig = replace(rig, loss=rig.loss.loss)
    graphs, sizes = [counters["stats"]["unique_graphs"]], set()
    for seed, longest in enumerate((40, 20, 90, 70)):
        for batch in rig.layout(make_rows("sft", count=5, seed=seed, longest=longest)):
            sizes.add((*batch.input_ids.shape, len(batch.loss_index), len(batch.segments.starts)))
            rig.backward(batch, batch.loss_count)
        graphs.append(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert len(sizes) > 3
    assert graphs[1] == graphs[0] + 2, "the layers' and the loss's"
    assert (graphs[-1] == graphs[1]) == symbolic, graphs
