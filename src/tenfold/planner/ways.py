"""Every combination of cuts and machines that fits its memory, priced.

What a combination computes and holds is counted once for each kind of machine (number formats, what it can compile and
multiply); each machine of the kind then only has its rates, its memory and its prices. So 10,000 combinations on two
dozen GPUs take a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Literal

from tenfold.cuts import Checkpoint, Cut, Fuse, Pack, Quantize
from tenfold.job import (
    Job,
    Work,
    bill,
    checking_work,
    evaluation_work,
    peak_by_blocks,
    peak_bytes,
    seconds_on,
    training_work,
    work_seconds,
)
from tenfold.job.seconds import blocks_copied_beside, compiling_seconds, one_save_seconds, saved_share, stalled_seconds
from tenfold.machine import Machine
from tenfold.planner.keeping import Room, most_offloaded, solve_checkpoint, tiled_checkpoints
from tenfold.planner.options import (
    Option,
    checkpoint_wish,
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
class Combination:
    """Cuts without the checkpoint, which is solved for the memory and the speed of each machine; what a checkpoint
    computes and holds is counted once."""

    base: Job
    cuts: tuple[Cut, ...]
    checkpoint: Checkpoint | Literal["never", "where needed", "always"]
    counted: dict[Checkpoint | None, Counted] = field(default_factory=dict[Checkpoint | None, Counted])

    def on(self, machine: Machine) -> Counted | None:
        """The cheapest that fits this machine, which is of the kind that was counted for; None if none does."""
        room = room_bytes(machine)
        if self.checkpoint in ("never", "where needed"):
            plain = self.with_checkpoint(None)
            if plain.peak_bytes <= room:
                return plain
        if self.checkpoint == "never":
            return None
        if isinstance(self.checkpoint, Checkpoint):
            named = self.with_checkpoint(self.checkpoint)
            return named if named.peak_bytes <= room else None
        job = self.base.on(machine)
        beside = blocks_copied_beside(job, machine, work_seconds(self.with_checkpoint(None).training, machine))
        room_for = Room(self.peak, room)
        solved = solve_checkpoint(job, room_for, beside, lambda cut: self._train_seconds(cut, machine))
        if solved is not None:
            return self.with_checkpoint(solved)
        fitting = (cut for cut, peak in self.tiled_peaks.items() if peak <= room)
        return next((self.with_checkpoint(cut) for cut in fitting), None)

    def with_checkpoint(self, cut: Checkpoint | None) -> Counted:
        """Counted, once."""
        if cut not in self.counted:
            job = self.base if cut is None else cut.price(self.base)
            cuts = self.cuts if cut is None else (*self.cuts, cut)
            peak = peak_bytes(job) if job.mlp_tiles > 1 else self.peak(job.recomputed_layers, job.offloaded_layers)
            self.counted[cut] = Counted(job, cuts, peak, training_work(job), self.evaluation, self.checking)
        return self.counted[cut]

    @cached_property
    def peak(self) -> Callable[[int, int], float]:
        """Bytes by numbers of recomputed and of offloaded blocks, on every machine of the kind."""
        return peak_by_blocks(self.base)

    @cached_property
    def tiled_peaks(self) -> dict[Checkpoint, float]:
        """Bytes of each checkpoint that is tried where no other fits."""
        return {cut: peak_bytes(cut.price(self.base)) for cut in tiled_checkpoints(self.base)}

    @cached_property
    def evaluation(self) -> Work:
        """Of which no checkpoint changes anything."""
        return evaluation_work(self.base)

    @cached_property
    def checking(self) -> Work:
        """Of a few short rows: what a checkpoint repeats of them is not worth counting again."""
        return checking_work(self.base)

    def _train_seconds(self, cut: Checkpoint, machine: Machine) -> float:
        """Of all that is billed the part that a checkpoint changes."""
        found = self.with_checkpoint(cut)
        seconds = work_seconds(found.training, machine)
        compiling = compiling_seconds(found.job, machine, found.training)
        return compiling + seconds + stalled_seconds(found.job, machine, seconds)

    def least_bytes(self) -> float:
        """Of the checkpoint that leaves least on the device."""
        if isinstance(self.checkpoint, Checkpoint):
            return self.with_checkpoint(self.checkpoint).peak_bytes
        layers, most = self.base.shape.layers, most_offloaded(self.base)
        solved = [] if self.checkpoint == "never" else [(layers, 0), (layers, most), (layers - most, most)]
        tiled = self.tiled_peaks.values() if solved else ()
        return min(*(self.peak(*blocks) for blocks in ((0, 0), *solved)), *tiled)


def priced_ways(recipe: Recipe, dense: Job, machines: Sequence[Machine], rejected: Counter[str]) -> list[Way]:
    """All combinations on all machines that fit, at each price; `rejected` counts those that do not, by reason."""
    combinations: dict[Hashable, list[Combination]] = {}
    found: list[Way] = []
    for group in same_hardware(machines):
        machine = group[0]
        kind = kind_of(machine)
        if kind not in combinations:
            combinations[kind] = list(_combinations(recipe, replace(dense, machine=machine)))
        for combination in combinations[kind]:
            counted = combination.on(machine)
            if counted is None:
                rejected[NO_ROOM] += 1
            else:
                found += _at_each_price(counted, group)
    return found


def least_bytes(recipe: Recipe, dense: Job) -> float:
    """Of the combination on the dense job's machine that needs least."""
    return min(combination.least_bytes() for combination in _combinations(recipe, dense))


def price_way(counted: Counted, machine: Machine) -> Way:
    """A combination on one machine."""
    return _at_each_price(counted, [machine])[0]


def count(job: Job, cuts: tuple[Cut, ...]) -> Counted:
    """What a job with its cuts computes and holds."""
    return Counted(job, cuts, peak_bytes(job), training_work(job), evaluation_work(job), checking_work(job))


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
    saving, share = one_save_seconds(counted.job), saved_share(counted.job)
    for machine in group:
        parts = seconds_on(counted.job, machine, counted.training, counted.evaluation, counted.checking)
        found.append(Way(counted, counted.job.on(machine), bill(parts, machine, saving, share)))
    return found


def _combinations(recipe: Recipe, dense: Job) -> Iterator[Combination]:
    """All of them on one kind of machine."""
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
                    yield Combination(base, cuts, checkpoint_wish(recipe, base.shape.layers))


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
