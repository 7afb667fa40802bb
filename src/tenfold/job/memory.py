"""Bytes by kind at each moment of a step; the largest moment is the peak.

    loss            all that is kept, and the logits or a chunk of them
    kept block      all that is kept, and what the backward pass of its last block makes on the way
    repeated block  the inputs of the recomputed blocks, one of them whole again, and the same on its way
    update          all gradients, and what the optimizer makes on the way

What lasts (weights, adapters, moments of the optimizer, libraries) is in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold.job.activations import FLOAT32_BYTES, block_bytes, end_bytes, first_block_saving, input_bytes
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
    micro, layers, again = job.largest, job.shape.layers, job.recomputed_layers
    gradients = float(FLOAT32_BYTES * job.trained_parameters)
    held = gradients if job.accumulates else 0.0
    block = block_bytes(job, micro)
    ends, inputs = end_bytes(job, micro), again * input_bytes(job, micro)
    kept = (layers - again) * block + inputs + ends - (0.0 if again else first_block_saving(job, micro))
    found = [
        _moment(job, "loss", held, kept + narrow_weight_bytes(job, layers), loss_bytes(job), 0.0),
        _moment(job, "update", gradients, 0.0, 0.0, update_bytes(job)),
    ]
    if again < layers:
        narrow = narrow_weight_bytes(job, layers - again)
        found.append(_moment(job, "kept block", held, kept + narrow, loss_gradient_bytes(job), backward_bytes(job)))
    for passed in (
        {0, again - 1} if again else ()
    ):  # the first of them has most inputs beside it, the last most gradients
        done = held or _gradients_after(job, layers - again + passed)
        whole = inputs * (1 - passed / again) + block + narrow_weight_bytes(job, 1)
        found.append(_moment(job, "repeated block", done, whole, 0.0, backward_bytes(job, True)))
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
            weights += job.stored_bytes - job.shape.block_parameters * size
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
