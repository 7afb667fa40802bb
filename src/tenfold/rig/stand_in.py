"""What stands before a module's own `forward`, as an attribute of the instance; classes stay as they are."""

from __future__ import annotations

from typing import Any

import torch


class StandIn:
    """Runs the module's own `forward` in another way. A second one takes the place of the first."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.own: Any = own_forward(module)


def own_forward(module: torch.nn.Module) -> Any:
    """A module's `forward`, without what stands before it."""
    found = module.forward
    return found.own if isinstance(found, StandIn) else found
