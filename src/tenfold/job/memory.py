"""Bytes by kind at each moment of a step; the largest moment is the peak.

    loss            all that is kept, and the logits or a chunk of them
    kept block      all that is kept, and what the backward pass of its last block makes on the way; or, where that one
                    works on fewer rows, without it, and what the backward pass of the one before makes
    repeated block  the inputs of the recomputed blocks, one of them whole again, and the same on its way
    update          all gradients, and what the optimizer makes on the way
    load            before the first step, of a warm start: the model that it changes, dense, and what it makes of it

What lasts (weights, adapters, moments of the optimizer, libraries) is in all of them but the last, which has libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tenfold.job.activations import FLOAT32_BYTES, footprint
from tenfold.job.fullest import fullest_head_rows, fullest_last_block_share
from tenfold.job.heap import MAPPED_BYTES, heap_gradient_share, mapped_block_bytes, passing_bytes, pinned_bytes
from tenfold.job.job import Blocks, Footprint, Job
from tenfold.job.kernels import compiled_kernels
from tenfold.job.transients import (
    backward_bytes,
    loss_bytes,
    loss_gradient_bytes,
    narrow_weight_bytes,
    tiled_block_bytes,
    update_bytes,
)

KINDS = (
    "weights", "adapters", "gradients", "optimizer", "activations", "logits", "transients", "libraries", "fragmentation"
)  # fmt: skip
"""Of bytes, in the order in which they are shown."""

MOMENT_BYTES = {"adamw": 4.0, "adamw_8bit": 1 + 4 / 256, "adamw_8bit_split": 1 + 4 / 256}
"""Of each of the two moments of a weight: float32, or a code and its share of the scale of 256 (run/adam8bit)."""


@dataclass(frozen=True)
class Moment:
    """A point of a step and the bytes alive at it, by kind."""

    name: str
    bytes_by_kind: Mapping[str, float]

    @property
    def bytes(self) -> float:
        """All of them."""
        return sum(self.bytes_by_kind.values())


def bytes_by_kind(job: Job) -> dict[str, float]:
    """What the bytes at the peak of a step hold."""
    return dict(peak_moment(job).bytes_by_kind)


def peak_bytes(job: Job) -> float:
    """The most that is alive at once."""
    return peak_moment(job).bytes


def peak_moment(job: Job) -> Moment:
    """The moment of the peak; of several as wide, since a heap does not shrink, the one where most is alive."""
    return max(moments(job), key=lambda moment: (round(moment.bytes), -moment.bytes_by_kind["fragmentation"]))


def moments(job: Job) -> tuple[Moment, ...]:
    """Every moment of a run that can be the peak."""
    amounts = _amounts(job)
    made = _made(amounts, job.blocks)
    steps = tuple(_moment(amounts, *one) for one in zip(made, _broken_up(amounts, made), strict=True))
    return (*steps, _load(amounts, job.preparation_bytes)) if job.preparation_bytes else steps


def peak_by_blocks(job: Job) -> Callable[[int, int], float]:
    """`peak_bytes` of a job by numbers of recomputed and of offloaded blocks: for who tries many."""
    amounts = _amounts(job)
    lasting, layers = sum(amounts.lasting.values()), amounts.layers
    loading = _load(amounts, job.preparation_bytes).bytes

    @cache
    def peak(recomputed: int, offloaded: int) -> float:
        blocks = Blocks.of(layers, recomputed, offloaded)
        made = _made(amounts, blocks)
        step = max(one.bytes + broken for one, broken in zip(made, _broken_up(amounts, made), strict=True))
        return max(lasting + step, loading)

    return peak


@dataclass(frozen=True)
class _Amounts:
    """What a step's moments are made of, whatever becomes of its blocks; bytes."""

    layers: int
    of_blocks: Footprint
    lasting: Mapping[str, float]
    fragmentation: float | None
    """What a CPU's heap holds beyond the most that was alive in it, as a share; None on a GPU."""
    holes: float
    """And what is free in it between what is not."""
    maps_logits: bool
    """Logits are too large for the heap."""
    mapped_by_block: float
    """So are these, of what a block keeps."""
    heap_gradient_share: float
    gradients: float
    accumulates: bool
    gradients_by_block: float
    """While the backward pass goes down: of each block."""
    gradients_above: float
    """And of the head, and of the last layer of one more block."""
    narrow_weights: float
    """Copies of the head's weight in the computing format, where products need them."""
    narrow_weights_by_block: float
    loss: float
    loss_gradient: float
    update: float
    last_pass: float
    """Of the last block's backward pass, the final norm's before it included; of it alone; and of any other block's."""
    narrowed_pass: float
    block_pass: float
    tiled: float | None
    """Of a block that is run again in tiles, in place of what it keeps and its pass; None without tiles."""

    def gradients_after(self, blocks: int) -> float:
        """Of what learns, once the backward pass has done so many blocks."""
        return self.gradients if self.accumulates else self.gradients_above + blocks * self.gradients_by_block


def _amounts(job: Job) -> _Amounts:
    gradients, layers = float(job.learned_bytes * job.trained_parameters), job.shape.layers
    by_block, above = gradients / layers, 0.0
    if not job.adapted:
        by_block = job.learned_bytes * job.shape.block_parameters / layers
        head = 0 if job.task == "classify" else job.shape.head_parameters
        above = job.learned_bytes * (job.shape.intermediate_size * job.shape.hidden_size + head)
    narrow = narrow_weight_bytes(job, 0)
    share = fullest_last_block_share(job)
    return _Amounts(
        layers=layers,
        of_blocks=footprint(job, job.largest),
        lasting=_lasting(job),
        fragmentation=_fragmentation(job),
        holes=job.machine.overheads.holes * (passing_bytes(job) + pinned_bytes(job)),
        maps_logits=_largest_logits_bytes(job) > MAPPED_BYTES,
        mapped_by_block=mapped_block_bytes(job),
        heap_gradient_share=heap_gradient_share(job),
        gradients=gradients,
        accumulates=job.accumulates,
        gradients_by_block=by_block,
        gradients_above=above,
        narrow_weights=narrow,
        narrow_weights_by_block=narrow_weight_bytes(job, 1) - narrow,
        loss=loss_bytes(job),
        loss_gradient=loss_gradient_bytes(job),
        update=update_bytes(job),
        last_pass=backward_bytes(job, share),
        narrowed_pass=backward_bytes(job, share, final=False),
        block_pass=backward_bytes(job, final=False),
        tiled=tiled_block_bytes(job, footprint(job, job.largest).block) if job.mlp_tiles > 1 else None,
    )


class _Made(NamedTuple):
    """What is alive at a moment beside what lasts; bytes."""

    name: str
    gradients: float
    activations: float
    logits: float
    transients: float
    mapped: float = 0.0
    """Of the activations: what is too large for a heap."""

    @property
    def bytes(self) -> float:
        """All of them."""
        return self.gradients + self.activations + self.logits + self.transients


def _broken_up(of: _Amounts, made: Sequence[_Made]) -> list[float]:
    """What the allocator holds at each of these moments beyond what is alive: a heap that has grown does not shrink."""
    if of.fragmentation is None:
        return [0.0] * len(made)
    heap = [
        max(0.0, one.activations - one.mapped)
        + one.transients
        + (0.0 if of.maps_logits else one.logits)
        + of.heap_gradient_share * one.gradients
        for one in made
    ]
    most = (1 + of.fragmentation) * max(heap) + of.holes
    return [most - alive for alive in heap]


def _largest_logits_bytes(job: Job) -> float:
    """Of a chunk of logits in the computing format, or of all of them."""
    if job.task == "classify":
        return 0.0
    rows = fullest_head_rows(job) if job.loss_rows is None else min(job.loss_rows, fullest_head_rows(job))
    return rows * job.shape.vocab_size * job.dtype_bytes


def _made(of: _Amounts, blocks: Blocks) -> list[_Made]:
    prints, held = of.of_blocks, of.gradients if of.accumulates else 0.0
    kept, coming = prints.on_device(blocks), prints.coming(blocks)
    narrow = of.narrow_weights + of.layers * of.narrow_weights_by_block
    mapped = blocks.kept * of.mapped_by_block
    found = [
        _Made("loss", held, kept + narrow, of.loss, 0.0, mapped),
        _Made("update", of.gradients, 0.0, 0.0, of.update),
    ]
    if blocks.kept:
        whole = kept + coming + of.narrow_weights + blocks.kept * of.narrow_weights_by_block
        found.append(_Made("kept block", held, whole, of.loss_gradient, of.last_pass, mapped))
        if blocks.kept > 1 and prints.last_extra:
            whole += prints.last_saving - prints.block
            found.append(_Made("kept block", of.gradients_after(1), whole, 0.0, of.block_pass, mapped))
    again = blocks.recomputed + blocks.offloaded_inputs
    inputs = blocks.recomputed * prints.input + (prints.last_extra if blocks.last_is_recomputed else 0.0)
    # the first repeated has most inputs beside it, the last most gradients; and the model's last may be a narrow one
    for passed in sorted({0, min(1, again - 1), again - 1}) if again else ():
        narrowed = blocks.last_is_recomputed and passed == 0
        block = prints.block - (prints.last_saving if narrowed else 0.0)
        whole = inputs * (1 - passed / again) + coming + block + of.narrow_weights + of.narrow_weights_by_block
        done, made = of.gradients_after(of.layers - again + passed), of.narrowed_pass if narrowed else of.block_pass
        if of.tiled is not None:
            whole, made = whole - block, of.tiled
        found.append(_Made("repeated block", done, whole, 0.0, made, of.mapped_by_block))
    return found


def _lasting(job: Job) -> dict[str, float]:
    """Weights, adapters, the optimizer's moments and libraries."""
    size, known = job.dtype_bytes, job.machine.overheads
    if job.adapted:
        full = job.task_parameters + job.full_block_parameters
        weights = float(job.parameters - full) * size + full * FLOAT32_BYTES
        if job.quantized:
            weights += job.stored_bytes - (job.shape.block_parameters - job.full_block_parameters) * size
            weights += job.ready_bytes if job.keeps_ready else 0.0
    else:
        weights = float(job.parameters * job.master_bytes)
    return {
        "weights": weights,
        "adapters": float(FLOAT32_BYTES * (job.adapter_parameters + (job.row_parameters if job.adapted else 0))),
        "optimizer": 2.0 * MOMENT_BYTES[job.optimizer] * job.trained_parameters,
        "libraries": known.library_bytes + known.kernel_bytes * compiled_kernels(job),
    }


def _fragmentation(job: Job) -> float | None:
    """Of padded micro-batches of many shapes."""
    if job.machine.vendor_kind == "cuda":
        return None
    varies = job.packed_tokens is None and len(job.workload.lengths) > 1
    return job.machine.overheads.fragmentation if varies else 0.0


def _moment(of: _Amounts, made: _Made, broken_up: float) -> Moment:
    """These bytes, and those that last."""
    kinds = {
        **of.lasting,
        "gradients": made.gradients,
        "activations": made.activations,
        "logits": made.logits,
        "transients": made.transients,
        "fragmentation": broken_up,
    }
    return Moment(made.name, {kind: kinds[kind] for kind in KINDS})


def _load(of: _Amounts, prepared: float) -> Moment:
    """Before the first step."""
    return Moment("load", {**dict.fromkeys(KINDS, 0.0), "weights": prepared, "libraries": of.lasting["libraries"]})
