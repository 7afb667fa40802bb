"""Every combination of cuts and machines that fits its memory, priced.

What a combination computes and holds is counted once for each kind of machine (number formats, what it can compile and
multiply); each machine of the kind then only has its rates, its memory and its prices. So 10,000 combinations on two
dozen GPUs take a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from tenfold.cuts import Cut, Fuse, Pack, Quantize
from tenfold.job import Job, bill, evaluation_work, peak_bytes, seconds_on, training_work
from tenfold.job.seconds import one_save_seconds
from tenfold.machine import Machine
from tenfold.planner.options import (
    Option,
    checkpoint_options,
    fine_tune_options,
    fuse_options,
    lora_options,
    micro_row_options,
    optimizer_options,
    pack_options,
    quantize_options,
    warm_start_options,
)
from tenfold.planner.way import Counted, Way
from tenfold.recipe import Recipe
from tenfold.recipe.schema import FuseWish, QuantizeWish

NO_ROOM = "need more memory than their machine has"


@dataclass
class Ladder:
    """One combination with ever more blocks recomputed, counted as far as anybody asked."""

    base: Job
    cuts: tuple[Cut, ...]
    checkpoints: Sequence[Option]
    rungs: list[tuple[Job, tuple[Cut, ...], float]] = field(default_factory=list[tuple[Job, tuple[Cut, ...], float]])
    counted: dict[int, Counted] = field(default_factory=dict[int, Counted])

    def fitting(self, room_bytes: float, rejected: Counter[str]) -> Counted | None:
        """The combination that recomputes least of those that fit: recomputing more would only take longer."""
        for rung in range(len(self.checkpoints)):
            if rung == len(self.rungs):
                checkpoint = self.checkpoints[rung]
                job = self.base if checkpoint is None else checkpoint.price(self.base)
                cuts = self.cuts if checkpoint is None else (*self.cuts, checkpoint)
                self.rungs.append((job, cuts, peak_bytes(job)))
            if self.rungs[rung][2] <= room_bytes:
                return self._count(rung)
            rejected[NO_ROOM] += 1
        return None

    def _count(self, rung: int) -> Counted:
        found = self.counted.get(rung)
        if found is None:
            job, cuts, peak = self.rungs[rung]
            found = self.counted[rung] = Counted(job, cuts, peak, training_work(job), evaluation_work(job))
        return found


def priced_ways(recipe: Recipe, dense: Job, machines: Sequence[Machine], rejected: Counter[str]) -> list[Way]:
    """All combinations on all machines that fit, at each price; `rejected` counts those that do not, by reason."""
    ladders: dict[Hashable, list[Ladder]] = {}
    found: list[Way] = []
    for group in same_hardware(machines):
        machine = group[0]
        kind = kind_of(machine)
        if kind not in ladders:
            ladders[kind] = list(_ladders(recipe, replace(dense, machine=machine)))
        room = room_bytes(machine)
        for ladder in ladders[kind]:
            counted = ladder.fitting(room, rejected)
            if counted is not None:
                found += _at_each_price(counted, group)
    return found


def least_bytes(recipe: Recipe, dense: Job) -> float:
    """Of the combination on the dense job's machine that needs least."""
    ladders = _ladders(recipe, dense)
    return min(peak_bytes(option.price(ladder.base)) if option is not None else peak_bytes(ladder.base)
               for ladder in ladders for option in ladder.checkpoints)  # fmt: skip


def price_way(counted: Counted, machine: Machine) -> Way:
    """A combination on one machine."""
    return _at_each_price(counted, [machine])[0]


def count(job: Job, cuts: tuple[Cut, ...]) -> Counted:
    """What a job with its cuts computes and holds."""
    return Counted(job, cuts, peak_bytes(job), training_work(job), evaluation_work(job))


def room_bytes(machine: Machine) -> float:
    """Memory that a plan may fill."""
    return machine.memory_bytes * (1 - machine.memory_margin)


def same_hardware(machines: Iterable[Machine]) -> list[list[Machine]]:
    """Machines grouped by hardware: within a group only prices and terms differ."""
    groups: dict[str, list[Machine]] = {}
    for machine in machines:
        groups.setdefault(machine.name, []).append(machine)
    return list(groups.values())


def kind_of(machine: Machine) -> Hashable:
    """What counting depends on."""
    return (machine.vendor_kind, machine.dtype, machine.supports_bf16, "float8" in machine.flops, machine.overheads)


def _at_each_price(counted: Counted, group: Sequence[Machine]) -> list[Way]:
    found: list[Way] = []
    saving = one_save_seconds(counted.job)
    for machine in group:
        parts = seconds_on(counted.job, machine, counted.training, counted.evaluation)
        found.append(Way(counted, replace(counted.job, machine=machine), bill(parts, machine, saving)))
    return found


def _ladders(recipe: Recipe, dense: Job) -> Iterator[Ladder]:
    """All combinations on one kind of machine, recomputation aside."""
    fixed = product(
        fine_tune_options(recipe),
        warm_start_options(recipe, dense.workload),
        quantize_options(recipe),
        lora_options(recipe),
        pack_options(recipe, dense.workload),
        fuse_options(recipe),
    )
    for options in fixed:
        packed = any(isinstance(option, Pack) for option in options)
        if (not packed and _wants_steady_shapes(recipe, options, dense)) or _asks_in_vain(recipe, options):
            continue
        for rows in (recipe.train.batch_size,) if packed else micro_row_options(recipe):
            for optimizer in optimizer_options(recipe):
                base, cuts = fold(options, replace(dense, micro_rows=rows, optimizer=optimizer))
                if len(cuts) == sum(option is not None for option in options):  # else the same without it is there too
                    yield Ladder(base, cuts, checkpoint_options(recipe, base.shape.layers))


def _wants_steady_shapes(recipe: Recipe, options: Sequence[Option], dense: Job) -> bool:
    """Compiled layers and padded rows of many lengths: each length would be compiled anew. Only if a recipe insists."""
    compiles = any(isinstance(option, Fuse) and option.compile for option in options)
    insists = isinstance(recipe.cuts.fuse, FuseWish) and recipe.cuts.fuse.compile is True
    return compiles and not insists and len(dense.workload.lengths) > 1


def _asks_in_vain(recipe: Recipe, options: Sequence[Option]) -> bool:
    """Products in fp8, or weights kept ready for them, without the compiled layers that alone can do either."""
    wish = recipe.cuts.quantize
    open_ = isinstance(wish, QuantizeWish) and (wish.compute == "auto" or wish.keep is None)
    compiles = any(isinstance(option, Fuse) and option.compile for option in options)
    asks = any(isinstance(option, Quantize) and (option.compute == "fp8" or option.keep) for option in options)
    return open_ and asks and not compiles


def fold(options: Iterable[Option], job: Job) -> tuple[Job, tuple[Cut, ...]]:
    """The job with the options' cuts, and those of them that changed it."""
    kept: list[Cut] = []
    for option in options:
        if option is not None and (changed := option.price(job)) != job:
            job = changed
            kept.append(option)
    return job, tuple(kept)
