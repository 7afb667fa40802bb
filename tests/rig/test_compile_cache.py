"""A layer that was compiled once is not compiled again by the next process, and none is mistaken for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from tenfold.rig.compiling import lean_inductor
from tenfold.rig.operands import Dense, Operand
from tenfold.rig.products import AdaptedProduct


@dataclass(frozen=True)
class Doubled(Dense):
    """The same product, and twice its gradient: another function in nothing but its backward pass."""

    def input_gradient(self, dys: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return 2 * super().input_gradient(dys, parts)


def run(operand: Operand, *, compiled: bool, back: bool = True) -> list[torch.Tensor]:
    """The product, and the gradients of x and of both adapters."""
    torch.manual_seed(0)
    weight = torch.randn(8, 16)
    x, down, up = (torch.randn(shape, requires_grad=True) for shape in ((4, 16), (2, 16), (8, 2)))

    def layer(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return AdaptedProduct.apply(x, operand, 1, 1.0, weight, down, up)[0]

    if compiled:
        torch._dynamo.reset()  # as a new process has compiled nothing
        counters.clear()
        layer = torch.compile(layer, backend=lean_inductor)
    y = layer(x, down, up)
    return [y, *(torch.autograd.grad(y, (x, down, up), torch.ones_like(y)) if back else ())]


def cache_counts() -> dict[str, int]:
    return {kind: counters["aot_autograd"][f"autograd_cache_{kind}"] for kind in ("miss", "hit", "bypass")}


def test_a_layer_is_found_again_and_only_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten seconds of a C++ compiler: nothing less shows what is found and what is not."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    try:
        for known in (False, True):
            found = run(Dense(), compiled=True)
            assert cache_counts() == {"miss": int(not known), "hit": int(known), "bypass": 0}
            for one, other in zip(found, run(Dense(), compiled=False), strict=True):
                torch.testing.assert_close(one, other)
        run(Doubled(), compiled=True, back=False)
        assert cache_counts() == {"miss": 1, "hit": 0, "bypass": 0}, "the control"
        assert not torch.equal(run(Doubled(), compiled=False)[1], run(Dense(), compiled=False)[1])
    finally:
        torch._dynamo.reset()
