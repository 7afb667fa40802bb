"""Operations that eager layers launch, counted by a dispatch mode on every family."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tenfold.cuts import Checkpoint, Cut, FineTune, LoRA, Pack, Quantize, on_paper, on_rig  # noqa: E402
from tenfold.job.launches import block_launches  # noqa: E402
from test_job import DECODERS, FAMILIES, make_job, make_rig, rows_of  # noqa: E402

FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "select", "slice", "unsqueeze", "squeeze",
    "as_strided", "detach", "alias", "split", "split_with_sizes", "unbind", "reshape", "_reshape_alias", "lift_fresh",
    "is_same_size", "empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "diagonal", "unflatten",
}  # fmt: skip
"""Operations that launch nothing."""

LORA = LoRA(rank=8, alpha=16.0)
COMBINATIONS: dict[str, tuple[Cut, ...]] = {
    "full": (),
    "lora": (LORA,),
    "lora pack": (LORA, Pack(4096)),
    "nf4 lora": (Quantize("nf4"), LORA),
    "lora checkpoint": (LORA, Checkpoint(3)),
}
TOLERANCE = 0.2


class Counter(TorchDispatchMode):
    """Counts what is launched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in FREE
        return func(*args, **(kwargs or {}))


def launched(family: str, cuts: tuple[Cut, ...]) -> float:
    """Of one block: forward and backward of the whole model, less its ends, which are a small and fixed number."""
    task = "text" if family in DECODERS else "classify"
    samples = rows_of(task, (120, 90, 64, 17))
    rig = on_rig(cuts, make_rig(family, len(samples)))
    rig.model.train()
    (batch,) = rig.layout(samples)
    with Counter() as counter:
        rig.loss(rig.model, batch).backward()
    return (counter.count - 60) / 3


@pytest.mark.parametrize(
    ("family", "name"),
    list(product(("llama", "qwen3", "gemma3", "phi3", "gpt2", "bert", "distilbert", "modernbert"), COMBINATIONS)),
)
def test_a_block_launches_as_many_operations_as_on_paper(family: str, name: str) -> None:
    cuts = COMBINATIONS[name]
    samples = rows_of("text" if family in DECODERS else "classify", (120, 90, 64, 17))
    job = on_paper((FineTune(), *cuts), make_job(family, samples))
    assert block_launches(job) == pytest.approx(launched(family, cuts), rel=TOLERANCE, abs=12)


def test_the_count_tells_combinations_apart() -> None:
    assert launched("llama", COMBINATIONS["nf4 lora"]) > (1 + TOLERANCE) * launched("llama", COMBINATIONS["lora"])
    assert set(FAMILIES) >= {"llama", "bert"}
