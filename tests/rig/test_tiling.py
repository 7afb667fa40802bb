"""Feed-forward parts in tiles: the same gradients, nothing wide at once, and no pass more than recomputing takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rigs import COMPILES, make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.errors import InputError
from tenfold.rig import tiling
from tenfold.rig.rig import Rig

ROWS = make_rows("sft", count=4, longest=60)
TILES = 5  # of which the last is shorter

CUTS: dict[str, tuple[Cut, ...]] = {
    "all weights": (),
    "adapters": (LoRA(rank=4),),
    "stored, packed and fused": (Quantize("nf4"), LoRA(rank=4), Pack(tokens=400), Fuse(loss_rows=16)),
}
if COMPILES:
    CUTS["compiled"] = (LoRA(rank=4), Pack(tokens=400), Fuse(loss_rows=400, compile=True))


def learning(family: str, cuts: tuple[Cut, ...] = ()) -> Rig:
    torch.manual_seed(0)
    rig = on_rig(cuts, make_rig(family, "sft"))
    torch.manual_seed(1)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    rig.model.train()
    return rig


class Widest(TorchDispatchMode):
    """The most numbers that one operation of a training step made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize(
    "cut", [Checkpoint(3, mlp_tiles=TILES), Checkpoint(2, 1, TILES)], ids=["all", "some, one away"]
)
@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_gives_the_same_gradients(family: str, name: str, cut: Checkpoint) -> None:
    if name == "compiled" and family != "llama":
        pytest.skip("a minute of compiling that shows nothing else")
    rig = learning(family, CUTS[name])
    loss, gradient = step_gradient(rig, ROWS)
    found, gradient_found = step_gradient(cut.apply(rig), ROWS)
    assert found == pytest.approx(loss, rel=1e-6)
    assert relative_error(gradient, gradient_found) < (1e-4 if name == "compiled" else 1e-5)


def test_a_tile_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    rig = learning("llama", CUTS["adapters"])
    _, gradient = step_gradient(rig, ROWS)
    backward = tiling._Tiles.backward

    def without_the_last(ctx: Any, grad: torch.Tensor) -> Any:
        return backward(ctx, torch.cat([grad[:, : -ctx.tile], grad[:, -ctx.tile :] * 0], dim=1))

    monkeypatch.setattr(tiling._Tiles, "backward", staticmethod(without_the_last))
    assert relative_error(gradient, step_gradient(Checkpoint(3, mlp_tiles=TILES).apply(rig), ROWS)[1]) > 1e-3


def test_nothing_as_wide_as_the_part_exists_for_all_tokens() -> None:
    """A row of 600 tokens, so that no weight is as large as what they make."""
    tokens, rig = 600, learning("llama", (LoRA(rank=4), Fuse(loss_rows=16)))
    width = rig.model.config.intermediate_size
    (row,) = make_rows("sft", count=1)
    rows = [replace(row, input_ids=row.input_ids * 300, loss_mask=(row.loss_mask or b"") * 300)]
    rows = [replace(row, input_ids=row.input_ids[:tokens], loss_mask=row.loss_mask[:tokens]) for row in rows]
    numbers = []
    for cut in (Checkpoint(3), Checkpoint(3, mlp_tiles=TILES)):
        with Widest() as widest:
            step_gradient(cut.apply(rig), rows)
        numbers.append(widest.numbers)
    assert numbers[0] >= tokens * width
    assert numbers[1] < tokens * width


def test_every_tile_runs_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, and again backward; not also when its block is run again. Without tiles a block's part runs twice."""
    rig = learning("llama", (LoRA(rank=4),))
    runs: Counter[int] = Counter()
    parts = [block.mlp for block in rig.model.base_model.layers]  # type: ignore[union-attr]
    for number, part in enumerate(parts):
        part.gate_proj.register_forward_hook(lambda *_, number=number: runs.update([number]))
    (batch, *_) = rig.layout(ROWS)
    for cut, times in ((Checkpoint(), 1), (Checkpoint(3), 2), (Checkpoint(3, mlp_tiles=TILES), 2 * TILES)):
        changed = rig if cut == Checkpoint() else cut.apply(rig)
        runs.clear()
        changed.loss(changed.model, batch).backward()
        assert runs == dict.fromkeys(range(3), times)


def test_another_setting_takes_the_place_of_the_first() -> None:
    rig = Checkpoint(3, mlp_tiles=4).apply(learning("llama"))
    assert "3 of 3 blocks recomputed, their feed-forward parts in 4 tiles" in rig.facts[-1]
    Checkpoint(1, mlp_tiles=2).apply(rig)
    forwards = [block.mlp.forward for block in rig.model.base_model.layers]  # type: ignore[union-attr]
    assert [isinstance(forward, tiling.TiledForward) for forward in forwards] == [True, False, False]
    assert not isinstance(forwards[0].own, tiling.TiledForward)


def test_evaluation_runs_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Checkpoint(3, mlp_tiles=4).apply(learning("llama"))
    rig.model.eval()
    monkeypatch.setattr(tiling._Tiles, "apply", lambda *_: pytest.fail("in tiles"))
    (batch, *_) = rig.layout(ROWS)
    with torch.no_grad():
        rig.loss(rig.model, batch)


def dropping_out(rig: Rig) -> None:
    for block in rig.model.base_model.h:  # type: ignore[union-attr]
        block.mlp.dropout.p = 0.5


def mixing(rig: Rig) -> None:
    for block in rig.model.base_model.h:  # type: ignore[union-attr]
        block.mlp.forward = lambda hidden: hidden - hidden.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("gpt2", dropping_out, "GPT2MLP drops out; leave it out"),
        ("gpt2", mixing, "GPT2MLP mixes tokens"),
        ("bert", lambda rig: None, "BertLayer has no module mlp; leave it out"),
    ],
)
def test_what_does_not_run_in_tiles_is_refused(family: str, change: Any, told: str) -> None:
    rig = make_rig(family, "classify" if family == "bert" else "sft")
    change(rig)
    with pytest.raises(InputError, match=rf"cuts\.checkpoint\.mlp_tiles: {told}"):
        Checkpoint(3, mlp_tiles=2).apply(rig)
