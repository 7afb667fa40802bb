"""What the host launches, counted as it is launched. One count for the benchmarks and for the tests."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "select", "slice", "unsqueeze", "squeeze",
    "as_strided", "detach", "alias", "split", "split_with_sizes", "unbind", "reshape", "_reshape_alias", "lift_fresh",
    "is_same_size", "empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "diagonal", "unflatten",
}  # fmt: skip
"""Operations that launch nothing."""


class LaunchCounter(TorchDispatchMode):
    """Counts what is launched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in FREE
        return func(*args, **(kwargs or {}))
