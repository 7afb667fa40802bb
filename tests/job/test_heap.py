"""What a CPU's heap holds: holes by what passes, what is too large for it, gradients where activations were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from tenfold.cuts import FineTune, LoRA, Pack, on_paper, on_rig  # noqa: E402
from tenfold.data.tokenize import Sample  # noqa: E402
from tenfold.job import Job, moments  # noqa: E402
from tenfold.job.activations import footprint  # noqa: E402
from tenfold.job.fullest import fullest_head_rows  # noqa: E402
from tenfold.job.heap import (  # noqa: E402
    MAPPED_BYTES,
    heap_gradient_share,
    mapped_block_bytes,
    passing_bytes,
    pinned_bytes,
)
from tenfold.job.kernels import compiled_kernels  # noqa: E402
from tenfold.rig.packing import PackedLayout  # noqa: E402
from test_job import make_job, make_plain_job, make_rig, rows_of  # noqa: E402

LORA = LoRA(rank=8, alpha=16.0)
LENGTHS = (250, 230, 210, 190, 120, 60)


class Made(TorchDispatchMode):
    """Bytes of all that operations make anew."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {_storage(x).data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = {_storage(x).data_ptr(): _storage(x) for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
        self.bytes += sum(storage.nbytes() for pointer, storage in made.items() if pointer not in known)
        return result


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("cuts", [(LORA,), (LORA, Pack(4096))])
def test_what_passes_is_what_a_block_makes_and_does_not_keep(family: str, cuts: tuple[Any, ...]) -> None:
    """Half as much and half as much again is told apart; operations differ in what they copy."""
    samples = rows_of("text", LENGTHS)
    job = on_paper((FineTune(), *cuts), make_job(family, samples))
    made: list[int] = []
    for layers in (2, 3):
        rig = on_rig(cuts, make_rig(family, len(samples), layers))
        rig.model.train()
        (batch,) = rig.layout(samples)
        with Made() as found:
            rig.loss(rig.model, batch)
        made.append(found.bytes)
    kept = footprint(job, job.largest).block
    assert passing_bytes(job) == pytest.approx(made[1] - made[0] - kept, rel=0.35)


def with_heap(job: Job, **changes: Any) -> Job:
    """With these constants of a heap alone."""
    known = replace(job.machine.overheads, library_bytes=0.0, kernel_bytes=0.0, fragmentation=0.0, holes=0.0)
    return replace(job, machine=replace(job.machine, overheads=replace(known, **changes)))


def test_holes_are_by_what_passes_and_by_gradients_among_activations() -> None:
    job = with_heap(replace(make_plain_job(), micro_rows=8))
    holed = with_heap(job, holes=0.5)
    assert job.accumulates
    added = [a.bytes - b.bytes for a, b in zip(moments(holed), moments(job), strict=True)]
    assert added == pytest.approx([0.5 * (passing_bytes(job) + pinned_bytes(job))] * len(added))
    assert pinned_bytes(replace(job, micro_rows=32)) == 0 < pinned_bytes(job)


def test_gradients_take_what_activations_left() -> None:
    """One micro-batch a step: at the update no activation is alive, and the heap has room for all gradients."""
    job = with_heap(replace(make_plain_job(64), micro_rows=32))
    of = {moment.name: moment.bytes_by_kind for moment in moments(job)}
    assert heap_gradient_share(job) == 1.0
    assert 0 < of["update"]["gradients"] < of["kept block"]["activations"]
    in_heap = ("activations", "gradients", "transients", "fragmentation")
    assert sum(of["update"][kind] for kind in in_heap) == pytest.approx(sum(of["kept block"][kind] for kind in in_heap))


def test_what_is_too_large_for_the_heap_is_not_in_it() -> None:
    long = [Sample([5] * size, bytes([0, *[1] * (size - 1)]), None, "rows.jsonl", 1) for size in (4096, 4096)]
    alike = make_job("llama", long * 64)
    width = alike.shape.intermediate_size * alike.dtype_bytes
    assert alike.largest.tokens * width >= MAPPED_BYTES
    assert mapped_block_bytes(alike) == 3 * alike.largest.tokens * width
    unlike = make_job("llama", [*long * 64, replace(long[0], input_ids=[5] * 64, loss_mask=bytes([0, *[1] * 63]))])
    assert mapped_block_bytes(unlike) == 3 * (unlike.largest.tokens * width - MAPPED_BYTES)
    assert mapped_block_bytes(make_plain_job()) == 0


def in_bfloat16(job: Job) -> Job:
    """On a CPU that multiplies in bfloat16."""
    return replace(job, machine=replace(job.machine, flops={"bfloat16": 1e12, "float32": 1e11}))


@pytest.mark.parametrize("share", [1, 2])
def test_rows_of_logits_are_those_that_are_looked_at(share: int) -> None:
    """Packed ones are full and filled up; where every other token bears loss, half of them."""
    mask = [bytes([0, *(int(place % share == 0) for place in range(1, size))]) for size in (200, 180, 90, 41)]
    samples = [Sample([5] * len(one), one, None, "rows.jsonl", 1) for one in mask]
    job = in_bfloat16(replace(make_job("llama", samples), packed_tokens=512, loss_rows=2048))
    (batch,) = PackedLayout(512, 0, multiple=job.filled_multiple)(samples)
    assert job.filled_multiple == 64
    assert fullest_head_rows(job) == len(batch.loss_index)
    assert fullest_head_rows(job) >= job.largest.tokens * job.head_share


def test_checks_compile_kernels_too() -> None:
    samples = [Sample([5] * size, None, None, "rows.jsonl", 1) for size in (100, 110, 120, 130, 400, 500)]
    job = in_bfloat16(on_paper((FineTune(), LORA), make_job("llama", samples)))
    trained, checked = (compiled_kernels(replace(job, checked=checked)) for checked in (False, True))
    assert checked == 7 * trained > 0  # all six rows in one micro-batch; four alone, and four and three together
