"""Operations that eager layers launch, counted by a dispatch mode on every family."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode  # noqa: E402

from accuracy.launch_counter import LaunchCounter  # noqa: E402
from tenfold.cuts import Cut, FineTune, LoRA, Pack, Quantize, on_paper, on_rig  # noqa: E402
from tenfold.job.launches import SMALL_8BIT, SPLIT, UPDATE_8BIT, UPDATE_SMALL, block_launches  # noqa: E402
from tenfold.rig import packing, segments  # noqa: E402
from tenfold.rig.precision import autocast  # noqa: E402
from tenfold.run.adam8bit import Adam8bit  # noqa: E402
from test_job import DECODERS, make_job, make_rig, rows_of  # noqa: E402

WIDENED = {torch.nn.functional.layer_norm, torch.layer_norm, torch.Tensor.pow, torch.Tensor.__pow__, torch.pow}
"""Of what stock layers call: functions that autocast computes in float32 on a GPU, and leaves as they come on a CPU."""

LORA = LoRA(rank=8, alpha=16.0)
COMBINATIONS: dict[str, tuple[Cut, ...]] = {
    "full": (),
    "lora": (LORA,),
    "lora pack": (LORA, Pack(4096)),
    "nf4 lora": (Quantize("nf4"), LORA),
    "int8 lora": (Quantize("int8"), LORA),
}
TOLERANCE = 0.2
UNEQUAL, EQUAL = (120, 90, 64, 17), (96, 96, 96)


class CastsOfGpu(TorchFunctionMode):
    """On top of a CPU's autocast what a GPU's also casts; and its kernels drop out attention themselves."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in WIDENED:
            args = tuple(map(_widened, args))
            kwargs = {name: _widened(value) for name, value in kwargs.items()}
        if func is torch.nn.functional.scaled_dot_product_attention:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


def launched(
    family: str,
    cuts: tuple[Cut, ...],
    dtype: torch.dtype = torch.bfloat16,
    lengths: tuple[int, ...] = EQUAL,
    gpu: bool = True,
) -> tuple[float, float]:
    """Of one block as training runs it, (forward, backward): what three blocks launch more than one, in halves."""
    counts: list[tuple[int, int]] = []
    samples = rows_of("text" if family in DECODERS else "classify", lengths)
    for layers in (1, 3):
        rig = on_rig(cuts, replace(make_rig(family, len(samples), layers), dtype=dtype))
        for _, weight in rig.trainable:
            weight.data = weight.data.float()  # as run/optimizer
        rig.model.train()
        (batch,) = rig.layout(samples)
        with autocast(torch.device("cpu"), dtype), LaunchCounter() as forward, CastsOfGpu() if gpu else nullcontext():
            loss = rig.loss(rig.model, batch)
        with LaunchCounter() as backward:
            loss.backward()
        counts.append((forward.count, backward.count))
    (one, three) = counts
    return (three[0] - one[0]) / 2, (three[1] - one[1]) / 2


def on_paper_of(
    family: str, cuts: tuple[Cut, ...], dtype: str, lengths: tuple[int, ...] = EQUAL, gpu: bool = True
) -> tuple[float, float]:
    """The same as the planner counts it."""
    job = make_job(family, rows_of("text" if family in DECODERS else "classify", lengths))
    kind = "cuda" if gpu else "cpu"
    computing = {"bfloat16": 1e12, "float32": 1e11} if dtype == "bfloat16" else {"float32": 1e11}
    machine = replace(job.machine, vendor_kind=kind, flops=computing, compute_capability=9.0 if gpu else None)
    return block_launches(on_paper((FineTune(), *cuts), replace(job, machine=machine)))


@pytest.mark.parametrize(
    ("family", "name"),
    list(product(("llama", "qwen3", "gemma3", "phi3", "gpt2", "bert", "distilbert", "modernbert"), COMBINATIONS)),
)
def test_a_block_launches_as_many_operations_as_on_paper(
    family: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_on_a_gpu(monkeypatch)
    found = launched(family, COMBINATIONS[name])
    assert on_paper_of(family, COMBINATIONS[name], "bfloat16") == pytest.approx(found, rel=TOLERANCE, abs=8)


@pytest.mark.parametrize(("family", "name"), list(product(("llama", "qwen3", "gpt2", "bert"), ("full", "lora"))))
def test_in_float32_nothing_is_cast(family: str, name: str) -> None:
    found = launched(family, COMBINATIONS[name], torch.float32, gpu=False)
    assert on_paper_of(family, COMBINATIONS[name], "float32", gpu=False) == pytest.approx(found, abs=3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_masks_and_buckets_are_counted(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_on_a_gpu(monkeypatch)
    for name in ("lora", "lora pack"):
        found = launched(family, COMBINATIONS[name], lengths=UNEQUAL)
        assert on_paper_of(family, COMBINATIONS[name], "bfloat16", UNEQUAL) == pytest.approx(found, rel=TOLERANCE)


def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of packed rows in the format that it comes in, and products of any number of rows."""
    monkeypatch.setattr(segments, "_working_dtype", lambda query: query.dtype)
    monkeypatch.setattr(packing, "filled_multiple", lambda *_: 1)


def test_the_count_tells_combinations_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_on_a_gpu(monkeypatch)
    plain, stored = (sum(launched("llama", COMBINATIONS[name])) for name in ("lora", "nf4 lora"))
    assert stored > (1 + TOLERANCE) * plain
    wide = sum(launched("bert", COMBINATIONS["full"], torch.float32, gpu=False))
    assert sum(launched("bert", COMBINATIONS["full"])) > (1 + TOLERANCE) * wide


def test_eight_bit_moments_launch_as_counted() -> None:
    counts: list[int] = []
    for size, splits in ((SMALL_8BIT, False), (SMALL_8BIT, True), (SMALL_8BIT - 1, False)):
        weight = torch.nn.Parameter(torch.ones(size))
        optimizer = Adam8bit([{"params": [weight], "weight_decay": 0.1}], (0.9, 0.999), 1e-8)
        if splits:
            optimizer.split(weight)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        with LaunchCounter() as counter:
            optimizer.step()
        counts.append(counter.count)
    assert pytest.approx(counts, abs=3) == [UPDATE_8BIT, UPDATE_8BIT + SPLIT, UPDATE_SMALL]
