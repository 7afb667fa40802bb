"""How fast this computer is just now, in seconds of a product and a copy: shared hosts change by the minute."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

SECONDS = 0.5
"""Of each."""


def median_seconds(call: Callable[[], object]) -> float:
    """Of one call, over SECONDS of them."""
    call()
    found: list[float] = []
    while sum(found) < SECONDS:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    """To standard output."""
    import torch

    square = torch.ones(1024, 1024, dtype=torch.bfloat16)
    source = torch.ones(2**24)
    target = torch.empty_like(source)
    found = {"product": median_seconds(lambda: square @ square), "copy": median_seconds(lambda: target.copy_(source))}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
