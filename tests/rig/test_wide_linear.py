"""Heads that stay float32 under autocast."""

from __future__ import annotations

import torch

from rigs import make_rig
from tenfold.rig.wide_linear import WideLinear, widen_linears


def test_autocast_does_not_narrow_it() -> None:
    rig = make_rig("llama", "classify")
    head = rig.model.get_submodule("score")
    x = torch.randn(3, head.in_features)  # type: ignore[arg-type]
    expected = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(x).dtype == torch.bfloat16  # the control
    names = [name for name, _ in rig.model.named_parameters()]
    widen_linears(rig.model, ("score",))
    assert [name for name, _ in rig.model.named_parameters()] == names
    with torch.autocast("cpu", torch.bfloat16):
        found = rig.model.get_submodule("score")(x)
    assert torch.equal(found, expected)


def test_only_the_named_modules_change() -> None:
    rig = make_rig("llama", "classify")
    widen_linears(rig.model, ("score",))
    wide = [name for name, module in rig.model.named_modules() if isinstance(module, WideLinear)]
    assert wide == ["score"]
