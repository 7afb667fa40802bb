"""After a lack of memory: the same step in smaller pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Pack, on_rig
from tenfold.rig.rig import Rig
from tenfold.rig.shrinking import shrink
from tenfold.run.loop import accumulate


def changes(rig: Rig, longest: int) -> list[str]:
    found: list[str] = []
    while (smaller := shrink(rig, longest)) is not None:
        rig, change = smaller
        found.append(change)
    return found


def test_micro_batches_shrink_first_then_blocks_are_recomputed() -> None:
    blocks = ["1 of 3 blocks recomputed", "2 of 3 blocks recomputed", "3 of 3 blocks recomputed"]
    blocks += [f"{blocks[-1]}, their feed-forward parts in {tiles} tiles" for tiles in (4, 16, 64)]
    assert changes(make_rig("llama", "sft"), 30) == ["2 rows a micro-batch", "1 rows a micro-batch", *blocks]
    packed = on_rig((Pack(tokens=100),), make_rig("llama", "sft"))
    assert changes(packed, 30) == ["50 tokens a micro-batch", "30 tokens a micro-batch", *blocks]


def test_parts_that_do_not_run_in_tiles_are_left_alone() -> None:
    assert changes(make_rig("bert", "classify"), 30)[-1] == "3 of 3 blocks recomputed"


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_that_runs_out_of_memory_gives_the_gradients_of_one_that_does_not(packed: bool) -> None:
    rows = make_rows("sft")
    rig = on_rig((Pack(tokens=100),) if packed else (), make_rig("llama", "sft"))
    loss, gradient = step_gradient(rig, rows)
    rig.model.zero_grad(set_to_none=True)
    said: list[str] = []

    def scarce(model, summed_loss, batch, loss_tokens, dtype):
        found = rig.backpropagate(model, summed_loss, batch, loss_tokens, dtype)
        if batch.tokens > 45:  # after the gradients, so that a retry which forgot to drop them would count them twice
            raise torch.OutOfMemoryError("pretended")
        return found

    class Scarce:
        def __call__(self, *arguments):
            return scarce(*arguments)

    tight = replace(rig, backpropagate=Scarce())
    _, batches, summed = accumulate(tight, rows, tight.layout(rows), said.append)
    found = torch.cat([w.grad.flatten() for _, w in tight.trainable if w.grad is not None])
    assert said and all("out of memory" in text for text in said)
    assert max(batch.tokens for batch in batches) <= 45
    assert float(summed) / sum(batch.loss_count for batch in batches) == pytest.approx(loss, abs=1e-5)
    assert relative_error(gradient, found) < 1e-5


def test_nothing_smaller_raises() -> None:
    def never(*arguments):
        raise torch.OutOfMemoryError("pretended")

    class Never:
        def __call__(self, *arguments):
            never()

    rows = make_rows("sft")
    rig = replace(make_rig("llama", "sft"), backpropagate=Never())
    with pytest.raises(torch.OutOfMemoryError):
        accumulate(rig, rows, rig.layout(rows), lambda text: None)
