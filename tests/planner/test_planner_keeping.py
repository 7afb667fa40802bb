"""Which activations to keep, recompute or offload: the solution against every one there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from shapes import LLAMA_8B
from tenfold.cuts import Checkpoint, FineTune, Fuse, LoRA, Pack, Quantize, on_paper
from tenfold.job import Job, bytes_by_kind, peak_by_blocks, peak_bytes, seconds_by_part, training_work, work_seconds
from tenfold.job.activations import block_bytes, footprint
from tenfold.job.seconds import blocks_copied_beside
from tenfold.machine import Machine, catalogue, local_machine
from tenfold.planner.keeping import HOST_SHARE, TILES, Room, solve_checkpoint, tiled_checkpoints
from tenfold.planner.ways import Combination, room_bytes
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

LAYERS = 12


def gpu(name: str) -> Machine:
    return next(machine for machine in catalogue() if machine.name == name)


def make_job(machine: Machine, tokens: int = 16384, adapted: bool = True, compiled: bool = False) -> Job:
    shape = shape_from_config("llama", {**LLAMA_8B, "num_hidden_layers": LAYERS})
    workload = Workload(((1024, 2000),), loss_tokens=2000 * 700)
    cuts = (FineTune(), *((LoRA(),) if adapted else ()), Pack(tokens), Fuse(compile=compiled))
    return on_paper(cuts, Job(shape, workload, machine, "sft", 16, 16, None, 1.0))


def seconds(job: Job) -> float:
    return sum(seconds_by_part(job).values())


def solved(job: Job, room_bytes: float) -> Checkpoint | None:
    plain = work_seconds(training_work(job), job.machine)
    beside = blocks_copied_beside(job, job.machine, plain)
    room = Room(peak_by_blocks(job), room_bytes)
    return solve_checkpoint(job, room, beside, lambda cut: seconds(cut.price(job)))


def every_way(job: Job) -> list[Job]:
    """All numbers of recomputed and offloaded blocks that there are."""
    on_gpu = job.machine.vendor_kind == "cuda"
    counts = product(range(LAYERS + 1), range(LAYERS if on_gpu else 1))
    jobs = [Checkpoint(layers, offload).price(job) for layers, offload in counts if layers + offload]
    host = HOST_SHARE * job.machine.memory_bytes
    return [one for one in jobs if one.offloaded_layers * block_bytes(job, job.largest) <= host]


@pytest.mark.parametrize("free", [0.0, 0.1, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", ["H200 SXM", "L40S", "T4"])
def test_the_cheapest_that_fits(name: str, adapted: bool, compiled: bool, free: float) -> None:
    """`free`: how far the room lies between the least and the most that the job could need."""
    job = make_job(gpu(name), adapted=adapted, compiled=compiled)
    ways = every_way(job)
    least = min(peak_bytes(way) for way in ways)
    room = least + free * (peak_bytes(job) - least)
    fitting = [seconds(way) for way in ways if peak_bytes(way) <= room]
    found = solved(job, room)
    assert found is not None
    taken = found.price(job)
    assert peak_bytes(taken) <= room
    assert seconds(taken) <= 1.01 * min(fitting)
    assert solved(job, 0.999 * least) is None


def test_copies_that_cost_nothing_come_before_products_that_do() -> None:
    """One block's worth of room is missing: eager layers wait for nothing when two blocks are copied beside ten."""
    job = make_job(gpu("H200 SXM"))
    room = peak_bytes(job) - block_bytes(job, job.largest)
    assert solved(job, room) == Checkpoint(offload=2)  # one is always on its way
    assert seconds(Checkpoint(offload=2).price(job)) == seconds(job)
    at_once = replace(job.machine.efficiency, launch_seconds=0.0)
    idle = replace(
        job,
        machine=replace(job.machine, flops={"bfloat16": 1e20}, bandwidth_bytes_per_second=1e20, efficiency=at_once),
    )
    assert seconds(Checkpoint(offload=2).price(idle)) > seconds(idle), "the control: nothing to copy beside"


def test_a_cpu_recomputes() -> None:
    job = make_job(local_machine(), tokens=2048)
    room = 0.5 * (peak_bytes(job) + peak_bytes(Checkpoint(LAYERS).price(job)))
    found = solved(job, room)
    assert found is not None
    assert found.offload == 0
    assert peak_bytes(Checkpoint(found.layers - 1).price(job)) > room
    assert Checkpoint(offload=3).price(job) == job


def test_what_waits_in_host_memory_is_all_that_is_kept_or_the_input() -> None:
    job = make_job(gpu("H200 SXM"))
    block = block_bytes(job, job.largest)
    of_blocks = footprint(job, job.largest)
    assert of_blocks.on_host(Checkpoint(0, 3).price(job).blocks) == 3 * block
    inputs = of_blocks.on_host(Checkpoint(LAYERS, 3).price(job).blocks)
    assert 0 < inputs < block
    assert Checkpoint(LAYERS, 3).price(job).blocks.offloaded_inputs == 3


def one_long_row(name: str, tokens: int, cut: Checkpoint | None = None) -> Job:
    shape = shape_from_config("llama", LLAMA_8B)
    cuts = (FineTune(), Quantize("nf4"), LoRA(), Pack(tokens), Fuse(512, compile=True), *((cut,) if cut else ()))
    return on_paper(cuts, Job(shape, Workload(((tokens, 50),), 50 * tokens), gpu(name), "text", 1, 1, None, 1.0))


@pytest.mark.parametrize(("tokens", "tiles"), [(4096, 1), (16384, 1), (65536, TILES)])
def test_rows_too_long_for_a_block_run_in_tiles(tokens: int, tiles: int) -> None:
    job = one_long_row("RTX 4090", tokens)
    found = Combination(job, (), "where needed").on(job.machine)
    assert found is not None
    assert found.job.mlp_tiles == tiles
    assert found.peak_bytes == peak_bytes(found.job) <= room_bytes(job.machine)
    assert peak_bytes(one_long_row("RTX 4090", 65536, Checkpoint(32, 31))) > room_bytes(job.machine), "the control"


def test_nothing_is_tiled_that_cannot_be() -> None:
    job = one_long_row("RTX 4090", 8192)
    assert tiled_checkpoints(job) == (Checkpoint(32, 0, TILES), Checkpoint(32, 31, TILES))
    assert tiled_checkpoints(replace(job, adapter_dropout=0.1)) == ()
    assert tiled_checkpoints(replace(job, shape=replace(job.shape, kind="encoder"))) == ()


def test_a_tiled_row_as_long_as_one_that_was_measured() -> None:
    """23.26 GB allocated on an H200 (bench/results/longest_llama-8b_h200_2026-11-28.json), libraries left out."""
    job = replace(one_long_row("H200 SXM", 131072), fp8_products=True, stored_as="nf4")
    job = Checkpoint(32, 31, 8).price(job)
    kinds = bytes_by_kind(job)
    assert sum(kinds.values()) - kinds["libraries"] - kinds["fragmentation"] == pytest.approx(23.26e9, rel=0.03)
