"""Bytes by kind at each moment of a step; the largest moment is the peak.

    loss            all that is kept, and the logits or a chunk of them
    kept block      all that is kept, and what the backward pass of its last block makes on the way; or, where that one
                    works on fewer rows, without it, and what the backward pass of the one before makes
    repeated block  the inputs of the recomputed blocks, one of them whole again, and the same on its way
    update          all gradients, and what the optimizer makes on the way

What lasts (weights, adapters, moments of the optimizer, libraries) is in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold.job.activations import FLOAT32_BYTES, footprint
from tenfold.job.job import Job
from tenfold.job.transients import (
    backward_bytes,
    loss_bytes,
    loss_gradient_bytes,
    narrow_weight_bytes,
    update_bytes,
)

KINDS = (
    "weights", "adapters", "gradients", "optimizer", "activations", "logits", "transients", "libraries", "fragmentation"
)  # fmt: skip
"""Of bytes, in the order in which they are shown."""

MOMENT_BYTES = {"adamw": 4.0, "adamw_8bit": 1 + 4 / 256}
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
    """The moment of the peak."""
    return max(moments(job), key=lambda moment: moment.bytes)


def moments(job: Job) -> tuple[Moment, ...]:
    """Every moment of a training step that can be the peak."""
    blocks, layers, of_blocks = job.blocks, job.shape.layers, footprint(job, job.largest)
    gradients = float(FLOAT32_BYTES * job.trained_parameters)
    held = gradients if job.accumulates else 0.0
    kept, coming = of_blocks.on_device(blocks), of_blocks.coming(blocks)
    found = [
        _moment(job, "loss", held, kept + narrow_weight_bytes(job, layers), loss_bytes(job), 0.0),
        _moment(job, "update", gradients, 0.0, 0.0, update_bytes(job)),
    ]
    if blocks.kept:
        whole = kept + coming + narrow_weight_bytes(job, blocks.kept)
        made = backward_bytes(job, job.last_block_share)
        found.append(_moment(job, "kept block", held, whole, loss_gradient_bytes(job), made))
        if blocks.kept > 1 and job.last_block_share < 1:
            done = held or _gradients_after(job, 1)
            whole += of_blocks.last_saving - of_blocks.block
            found.append(_moment(job, "kept block", done, whole, 0.0, backward_bytes(job, final=False)))
    again = blocks.recomputed + blocks.offloaded_inputs
    inputs = blocks.recomputed * of_blocks.input + (of_blocks.last_extra if blocks.last_is_recomputed else 0.0)
    # the first repeated has most inputs beside it, the last most gradients; and the model's last may be a narrow one
    for passed in sorted({0, min(1, again - 1), again - 1}) if again else ():
        done = held or _gradients_after(job, layers - again + passed)
        narrow = blocks.last_is_recomputed and passed == 0
        block = of_blocks.block - (of_blocks.last_saving if narrow else 0.0)
        whole = inputs * (1 - passed / again) + coming + block + narrow_weight_bytes(job, 1)
        made = backward_bytes(job, job.last_block_share if narrow else 1.0, final=False)
        found.append(_moment(job, "repeated block", done, whole, 0.0, made))
    return tuple(found)


def _gradients_after(job: Job, blocks: int) -> float:
    """Of what learns, once the backward pass has done so many blocks and the last layer of one more."""
    share = blocks / job.shape.layers
    if job.adapted:
        return share * FLOAT32_BYTES * job.trained_parameters
    head = 0 if job.task == "classify" else job.shape.head_parameters
    down = job.shape.intermediate_size * job.shape.hidden_size
    return FLOAT32_BYTES * (share * job.shape.block_parameters + down + head)


def _moment(job: Job, name: str, gradients: float, activations: float, logits: float, transients: float) -> Moment:
    """These bytes, and those that last."""
    size, known = job.dtype_bytes, job.machine.overheads
    if job.adapted:
        full = job.task_parameters + job.full_block_parameters
        weights = float(job.parameters - full) * size + full * FLOAT32_BYTES
        if job.quantized:
            weights += job.stored_bytes - (job.shape.block_parameters - job.full_block_parameters) * size
            weights += job.ready_bytes if job.keeps_ready else 0.0
    else:
        weights = float(job.parameters * FLOAT32_BYTES)
    kinds = {
        "weights": weights,
        "adapters": float(FLOAT32_BYTES * (job.adapter_parameters + (job.row_parameters if job.adapted else 0))),
        "gradients": gradients,
        "optimizer": 2.0 * MOMENT_BYTES[job.optimizer] * job.trained_parameters,
        "activations": activations,
        "logits": logits,
        "transients": transients,
        "libraries": known.library_bytes,
        "fragmentation": known.fragmentation * (activations + logits + transients),
    }
    return Moment(name, kinds)
