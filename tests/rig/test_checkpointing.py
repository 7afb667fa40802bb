"""Recomputed and offloaded blocks: the same gradients, copies in their order, and nothing left on the device."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from rigs import COMPILES, make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.errors import InputError, NoEffect
from tenfold.rig import checkpointing, compiling, offloading
from tenfold.rig.checkpointing import PlacedForward, places_of
from tenfold.rig.chunked_loss import loss_in_one_pass
from tenfold.rig.offloading import HostLink, OffloadedCall
from tenfold.rig.rig import Rig
from tiny import FAMILIES

EXACT = 1e-6
"""Relative: copies change nothing, but sums may run in another order after a recomputation."""

WAYS = [Checkpoint(0, 1), Checkpoint(0, 2), Checkpoint(1, 1), Checkpoint(3, 1), Checkpoint(3, 2), Checkpoint(2, 2)]


@pytest.fixture(autouse=True)
def _every_tensor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models keep little."""
    monkeypatch.setattr(offloading, "SMALLEST_BYTES", 0)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the offloaded calls, in order; calls are numbered as they begin."""
    found: list[str] = []
    numbers: dict[int, int] = {}
    names = {"leave": "out", "settle": "settled", "fetch": "back", "come_back": "used"}
    for method, name in names.items():
        original = getattr(OffloadedCall, method)

        def watched(self: OffloadedCall, *args: object, original=original, name=name) -> object:
            event = f"{name} {numbers.setdefault(id(self), len(numbers))}"
            known = (bool(found) and found[-1] == event) or (name == "back" and self._fetched)
            found.extend([] if known else [event])
            return original(self, *args)

        monkeypatch.setattr(OffloadedCall, method, watched)
    return found


def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each copy to the host."""
    found: list[int] = []
    original = HostLink.to_host

    def counted(self: HostLink, values: torch.Tensor) -> torch.Tensor:
        found.append(values.nbytes)
        return original(self, values)

    monkeypatch.setattr(HostLink, "to_host", counted)
    return found


def learning(family: str, cuts: tuple[Cut, ...] = ()) -> Rig:
    task = "sft" if family in ("llama", "gpt2", "phi3") else "classify"
    torch.manual_seed(0)
    rig = on_rig(cuts, make_rig(family, task))
    torch.manual_seed(1)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return rig


@pytest.mark.parametrize("cut", WAYS, ids=lambda cut: f"{cut.layers} again, {cut.offload} away")
@pytest.mark.parametrize("family", FAMILIES)
def test_gives_the_same_gradients_on_every_family(family: str, cut: Checkpoint, copies: list[str]) -> None:
    rig = learning(family)
    rows = make_rows(rig.task)
    loss, gradient = step_gradient(rig, rows)
    assert not copies
    found, gradient_found = step_gradient(cut.apply(rig), rows)
    assert found == loss
    assert relative_error(gradient, gradient_found) < EXACT
    assert copies


COMBINED: dict[str, tuple[Cut, ...]] = {
    "adapters": (LoRA(rank=4),),
    "packed and fused": (LoRA(rank=4), Pack(tokens=100), Fuse(loss_rows=16)),
    "stored": (Quantize("nf4"), LoRA(rank=4), Pack(tokens=100), Fuse(loss_rows=16)),
    "dropped out": (LoRA(rank=4, dropout=0.3), Pack(tokens=100)),
}
if COMPILES:
    COMBINED["compiled"] = (LoRA(rank=4), Pack(tokens=300), Fuse(loss_rows=300, compile=True))


@pytest.mark.parametrize("cut", [Checkpoint(0, 2), Checkpoint(3, 2)], ids=["away", "again and away"])
@pytest.mark.parametrize("name", COMBINED)
def test_goes_with_other_cuts(name: str, cut: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    if not cut.layers:  # half a minute of compiling saved: the other case has it
        monkeypatch.setattr(compiling, "lean_inductor", lambda graph, inputs: graph)
    rows = make_rows("sft")
    rig = learning("llama", COMBINED[name])
    torch.manual_seed(2)
    loss, gradient = step_gradient(rig, rows)
    torch.manual_seed(2)
    found, gradient_found = step_gradient(cut.apply(rig), rows)
    assert found == pytest.approx(loss, rel=EXACT)
    assert relative_error(gradient, gradient_found) < (1e-4 if name == "compiled" else EXACT)


@pytest.mark.skipif(not COMPILES, reason="this torch does not compile packed rows, or finds no compiler")
@pytest.mark.parametrize("cut", [Checkpoint(2), Checkpoint(3, 2)], ids=["again", "again and away"])
def test_compiled_layers_stay_compiled(cut: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run again is the compiled layer: as many graphs, and in none of them a break."""
    monkeypatch.setattr(compiling, "lean_inductor", lambda graph, inputs: graph)
    monkeypatch.setattr(compiling, "_compiled_loss", lambda: loss_in_one_pass)
    found = []
    for cuts in ((), (cut,)):
        torch._dynamo.reset()
        counters.clear()
        rig = on_rig(cuts, learning("llama", (LoRA(rank=4), Pack(tokens=300), Fuse(loss_rows=300, compile=True))))
        step_gradient(rig, make_rows("sft"))
        found.append((counters["stats"]["unique_graphs"], dict(counters["graph_break"])))
    assert found[0][0] == 1
    assert found[0][1] == {}
    assert found[1] == found[0]


def test_blocks_that_run_twice_keep_no_keys_and_values() -> None:
    """In a loop of one's own that forgets `use_cache=False`, too: the second run would see those of the first."""
    rig = learning("llama")
    ids = make_rows("sft", count=1)[0].input_ids
    inputs = torch.tensor([list(ids)])
    rig.model.train()
    gradients = []
    for changed in (rig, Checkpoint(layers=3).apply(rig)):
        changed.model.zero_grad()
        changed.model(input_ids=inputs, use_cache=True).logits.float().logsumexp(-1).sum().backward()
        gradients.append(torch.cat([w.grad.flatten() for _, w in changed.trainable if w.grad is not None]))
    assert relative_error(*gradients) < EXACT


@pytest.mark.parametrize("cut", [Checkpoint(0, 2), Checkpoint(3, 2)], ids=["away", "again and away"])
def test_what_does_not_come_back_as_it_left_is_noticed(cut: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: one byte of what returns is another."""
    rig = cut.apply(learning("llama", (LoRA(rank=4),)))
    rows = make_rows("sft")
    _, gradient = step_gradient(rig, rows)
    original = HostLink.to_device

    def spoilt(self: HostLink, host: torch.Tensor) -> torch.Tensor:
        values = original(self, host)
        values.view(torch.float32)[: values.nbytes // 8].mul_(1.1)
        return values

    monkeypatch.setattr(HostLink, "to_device", spoilt)
    assert relative_error(gradient, step_gradient(rig, rows)[1]) > 1e-3


def test_copies_are_made_beside_other_blocks(copies: list[str]) -> None:
    """Of three blocks two are offloaded: each has left before the next leaves, and is on its way back before it is
    needed: the second when the backward pass of the third begins, the first when that of the second does."""
    rig = Checkpoint(offload=2).apply(learning("llama"))
    (batch, *_) = rig.layout(make_rows("sft"))
    loss = rig.loss(rig.model, batch)
    assert copies == ["out 0", "settled 0", "out 1", "settled 1"]
    del copies[:]
    loss.backward()
    assert copies == ["back 1", "back 0", "used 1", "used 0"]


def test_nothing_waits_for_a_copy_that_was_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is fetched by the block above it, never by the first tensor that is missing."""
    late: list[OffloadedCall] = []
    original = OffloadedCall.come_back

    def watched(self: OffloadedCall, waiting: object) -> torch.Tensor:
        if not self._fetched and not isinstance(waiting, torch.Tensor):
            late.append(self)
        return original(self, waiting)  # type: ignore[arg-type]

    monkeypatch.setattr(OffloadedCall, "come_back", watched)
    for cut in WAYS:
        step_gradient(cut.apply(learning("llama")), make_rows("sft"))
    assert not late


def test_weights_and_what_all_blocks_share_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """With frozen weights: of each offloaded block no more than the tokens' own activations."""
    rig = learning("llama", (LoRA(rank=4), Pack(tokens=1000), Fuse(loss_rows=100, compile=COMPILES)))
    weights = max(weight.nbytes for weight in rig.model.base_model.layers.parameters())  # type: ignore[union-attr]
    sizes = moved(monkeypatch)
    rig = Checkpoint(offload=2).apply(rig)
    one = make_rows("sft", count=1, longest=4)
    step_gradient(rig, one)
    assert sizes
    assert max(sizes) < weights


def test_the_device_lets_go_of_what_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Checkpoint(offload=2).apply(learning("llama"))
    calls: list[OffloadedCall] = []
    begin = OffloadedCall.__init__

    def noted(self: OffloadedCall, *arguments: Any) -> None:
        begin(self, *arguments)
        calls.append(self)

    monkeypatch.setattr(OffloadedCall, "__init__", noted)
    (batch, *_) = rig.layout(make_rows("sft"))
    loss = rig.loss(rig.model, batch)
    assert [call.device_bytes for call in calls] == [0, 0]
    assert all(call.host_bytes > 0 for call in calls)
    held: list[int] = []
    fetch = OffloadedCall.fetch

    def fetched(self: OffloadedCall) -> None:
        fetch(self)
        held.append(sum(call.device_bytes for call in calls))

    monkeypatch.setattr(OffloadedCall, "fetch", fetched)
    loss.backward()
    assert max(held) <= sum(call.host_bytes for call in calls), "each is there once"
    assert [call.device_bytes for call in calls] == [0, 0], "what came back belongs to who asked for it"
    watched = [weakref.ref(call) for call in calls]
    del loss
    calls.clear()
    gc.collect()
    assert [call() for call in watched] == [None, None], "and what waited is gone with the graph"


def test_who_asks_again_gets_it_again() -> None:
    """A backward pass may read its saved tensors more than once."""
    call = OffloadedCall(HostLink(torch.device("cpu")), [])
    values = torch.arange(6.0)
    waiting = [call.leave(values), call.leave(values[2:])]
    call.settle()
    for _ in range(2):
        assert call.come_back(waiting[0]).equal(values)
        assert call.come_back(waiting[1]).equal(values[2:])
    assert call.device_bytes == 0


def test_small_tensors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloading, "SMALLEST_BYTES", 2**30)
    sizes = moved(monkeypatch)
    step_gradient(Checkpoint(offload=2).apply(learning("llama")), make_rows("sft"))
    assert not sizes


@pytest.mark.parametrize(
    ("cut", "again", "away"),
    [
        (Checkpoint(3, 0), {0, 1, 2}, set()),
        (Checkpoint(0, 3), set(), {0, 3, 6}),
        (Checkpoint(2, 3), {1, 2}, {0, 3, 6}),
        (Checkpoint(9, 3), {1, 2, 4, 5, 7, 8, 9, 0, 3}, {0, 3, 6}),
        (Checkpoint(10, 9), set(range(10)), set(range(9))),
    ],
)
def test_which_blocks(cut: Checkpoint, again: set[int], away: set[int]) -> None:
    places = places_of(cut, 10)
    assert {number for number, place in enumerate(places) if place.recomputed} == again
    assert {number for number, place in enumerate(places) if place.offloaded} == away
    assert [place.follows for place in places] == [False] * 9 + [bool(away)]


def test_another_setting_takes_the_place_of_the_first() -> None:
    rig = Checkpoint(1, 2).apply(learning("llama"))
    rig = Checkpoint(layers=1).apply(rig)
    functions = [block.forward for block in rig.model.base_model.layers]  # type: ignore[union-attr]
    assert [isinstance(function, PlacedForward) for function in functions] == [True, False, False]
    assert not isinstance(functions[0].own, PlacedForward), "none stands before another"
    assert [fact for fact in rig.facts if fact.startswith("checkpoint")] == ["checkpoint: 1 of 3 blocks recomputed"]
    assert rig.checkpoint == Checkpoint(layers=1)


def test_more_blocks_than_there_are_are_refused() -> None:
    rig = make_rig("llama", "sft")
    with pytest.raises(InputError, match=r"cuts\.checkpoint\.layers: found 4, but at most 3 of 3 blocks can"):
        Checkpoint(layers=4).apply(rig)
    with pytest.raises(InputError, match=r"cuts\.checkpoint\.offload: found 3, but at most 2 of 3 blocks can"):
        Checkpoint(offload=3).apply(rig)
    with pytest.raises(NoEffect, match="checkpoint"):
        Checkpoint().apply(rig)


def test_evaluation_copies_nothing(copies: list[str]) -> None:
    rig = Checkpoint(3, 2).apply(learning("llama"))
    rig.model.eval()
    (batch, *_) = rig.layout(make_rows("sft"))
    with torch.no_grad():
        evaluated = rig.loss(rig.model, batch)
    assert not copies
    rig.model.train()
    assert torch.equal(rig.loss(rig.model, batch).detach(), evaluated)


def test_a_shrunken_rig_says_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device is not the host inputs can wait there; what is left at last are tiles."""
    from tenfold.rig.shrinking import shrink

    monkeypatch.setattr(offloading, "HostLink", lambda device: None)
    monkeypatch.setattr(checkpointing, "tile_feed_forwards", lambda *_: None)  # which looks at the device
    rig = replace(Checkpoint(3).apply(learning("llama")), device=torch.device("cuda"))
    rig = replace(rig, layout=replace(rig.layout, rows=1))  # type: ignore[type-var]
    smaller = shrink(rig, 30)
    assert smaller is not None
    away = "2 of 3 blocks in host memory until their backward pass"
    assert smaller[1] == f"3 of 3 blocks recomputed, {away}"
    for tiles in (4, 16, 64):
        smaller = shrink(smaller[0], 30)
        assert smaller is not None
        assert smaller[1] == f"3 of 3 blocks recomputed, their feed-forward parts in {tiles} tiles, {away}"
    assert shrink(smaller[0], 30) is None
