"""Work on paper: what each cut adds and takes, and how it becomes seconds."""

from __future__ import annotations

from array import array
from dataclasses import fields, replace
from typing import Any, Literal

import pytest
import torch

from paper import CONFIG, ROWS, machines
from tenfold.cuts import Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, on_paper
from tenfold.data.tokenize import Sample
from tenfold.job import Job, Work, evaluation_work, seconds_by_part, training_work, work_seconds
from tenfold.job.flops import RAGGED_TILE, tiled_share
from tenfold.job.seconds import OVERLAP, PROCESS_PARTS, process_seconds
from tenfold.machine import Machine, gpu_named, local_machine
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.filler import filled_multiple
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

LORA = LoRA()
STEADY = (LORA, Pack(8192), Fuse(compile=True))
QUERY, ATTENTION = ("q_proj",), ("q_proj", "k_proj", "v_proj", "o_proj")


def job_of(*cuts: Cut, machine: Machine | None = None, workload: Workload = ROWS, **changes: Any) -> Job:
    on = machine or machines("H200 SXM")[0]
    dense = Job(shape_from_config("m", CONFIG), workload, on, "text", 16, 4, None, 1.0)
    return on_paper((FineTune(), *cuts), replace(dense, **changes))


def work_of(*cuts: Cut, **changes: Any) -> Work:
    return training_work(job_of(*cuts, **changes))


def test_frozen_weights_have_no_gradients_to_compute() -> None:
    """Two products a layer instead of three, less the first block's; and what learns is small to update."""
    full, lora = work_of(), work_of(LORA)
    assert lora.products / full.products == pytest.approx(2 / 3, rel=0.05)
    assert lora.streamed_bytes < 0.5 * full.streamed_bytes
    assert lora.adapter_bytes > 0 == full.adapter_bytes


def test_recomputing_adds_a_forward_pass() -> None:
    plain, again = work_of(LORA, Fuse()), work_of(LORA, Fuse(), Checkpoint(16))
    assert again.products / plain.products == pytest.approx(1.45, abs=0.1)
    assert again.launches > 1.2 * plain.launches
    assert again.dequantized_bytes == plain.dequantized_bytes == 0


def test_padding_is_computed_and_packing_is_not() -> None:
    padded, packed = work_of(LORA, Fuse()), work_of(LORA, Fuse(), Pack(4096))
    assert packed.products < 0.8 * padded.products
    assert 0 < packed.ragged_attention < 0.8 * padded.ragged_attention


def test_recorded_passes_are_launched_at_once() -> None:
    eager, compiled = work_of(LORA, Pack(8192), Fuse()), work_of(*STEADY)
    assert compiled.launches < 0.01 * eager.launches
    assert compiled.touched_bytes == 0 < eager.touched_bytes
    assert compiled.streamed_bytes > 1.3 * eager.streamed_bytes, "what is fused is counted as passes of its own"
    on_cpu = work_of(*STEADY, machine=replace(local_machine(), vendor_kind="cpu"))
    assert on_cpu.launches > 0


def test_steady_micro_batches_are_filled_up() -> None:
    job = job_of(*STEADY)
    assert job.filled_multiple == 1024
    assert job.computed_tokens > job.tokens_trained
    assert job_of(LORA, Pack(8192), Fuse()).computed_tokens == job.tokens_trained


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_where_new_shapes_are_compiled_micro_batches_are_filled_up(dtype: Literal["bfloat16", "float32"]) -> None:
    """As by the layouts of the run: rig/batch, rig/packing."""
    cpu = replace(local_machine(), vendor_kind="cpu", flops={dtype: 1e12})
    assert cpu.dtype == dtype
    device, narrow = torch.device("cpu"), getattr(torch, dtype)
    assert job_of(LORA, Pack(1024), machine=cpu).filled_multiple == filled_multiple(device, narrow, 1024)
    layout = PaddedLayout(4, 0, filled_multiple(device, narrow, 1))
    rows = [Sample(array("I", [1] * length), bytes(length), None, "a", 1) for length in (30, 50, 20, 41)]
    (batch,) = layout(rows)
    workload = Workload(((20, 1), (30, 1), (41, 1), (50, 1)), loss_tokens=137)
    job = job_of(LORA, machine=cpu, workload=workload)
    assert (job.largest.longest, job.epoch.tokens) == (batch.input_ids.shape[1], batch.input_ids.numel())


def test_attention_goes_to_the_kernel_that_can_do_it() -> None:
    uniform = Workload(((512, 64),), loss_tokens=64 * 511)
    assert work_of(*STEADY).ragged_attention > 0
    assert work_of(*STEADY, workload=uniform).ragged_attention == 0 < work_of(*STEADY, workload=uniform).attention
    assert work_of(LORA, workload=uniform).ragged_attention == 0, "their shape is planned once"
    encoder = {"model_type": "bert", "architectures": ["BertModel"], "type_vocab_size": 2, "hidden_act": "gelu",
               "max_position_embeddings": 512, "layer_norm_eps": 1e-12, **{
        name: CONFIG[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                        "vocab_size")}}  # fmt: skip
    shape = shape_from_config("b", encoder)
    assert work_of(LORA, shape=shape, task="classify").masked_attention > 0 == work_of(LORA).masked_attention
    assert work_of(LORA, shape=shape, task="classify", workload=uniform).masked_attention == 0


@pytest.mark.parametrize(
    ("lengths", "causal", "tiles", "pairs"),
    [
        (((128, 3),), True, 3, 3 * 128**2),
        (((129, 1),), True, 3, 129**2),
        (((129, 1),), False, 4, 129**2),
        (((20, 2), (256, 1)), True, 2 + 3, 2 * 20**2 + 256**2),
    ],
)
def test_ragged_rows_are_attended_in_whole_tiles(lengths: Any, causal: bool, tiles: int, pairs: int) -> None:
    workload = Workload(lengths, loss_tokens=1)
    assert tiled_share(workload, causal) == pytest.approx(tiles * RAGGED_TILE**2 / pairs)
    long = replace(workload, lengths=((100 * RAGGED_TILE, 1),))
    assert tiled_share(long, causal) == pytest.approx(0.5 if causal else 1.0, rel=0.02), "the control"


def test_fp8_products_need_compiled_layers_and_their_weights_turned() -> None:
    eager = work_of(Quantize("fp8", "fp8"), LORA, Fuse())
    compiled, kept = (work_of(Quantize("fp8", "fp8", keep), *STEADY) for keep in (False, True))
    assert eager.fp8_products == 0 < compiled.fp8_products == kept.fp8_products
    assert kept.dequantized_bytes == 0 < compiled.dequantized_bytes
    assert compiled.products + compiled.fp8_products == pytest.approx(work_of(*STEADY).products, rel=1e-6)


@pytest.mark.parametrize("storage", ["nf4", "int8", "fp8"])
def test_stored_weights_are_made_dense_in_each_pass(storage: Any) -> None:
    once = work_of(Quantize(storage), LORA, Fuse())
    again = work_of(Quantize(storage), LORA, Fuse(), Checkpoint(16))
    assert again.dequantized_bytes == pytest.approx(1.5 * once.dequantized_bytes)
    assert work_of(Quantize(storage), *STEADY).dequantized_bytes < once.dequantized_bytes


def test_evaluation_is_a_forward_pass_of_the_held_out_rows() -> None:
    job = job_of(LORA, Fuse(), workload=replace(ROWS, evaluation_tokens=ROWS.tokens), evaluations=1)
    assert evaluation_work(job_of(LORA)) == Work()
    evaluated, trained = evaluation_work(job), training_work(job)
    assert 0.3 < evaluated.products / trained.products < 0.6
    assert evaluated.steps == 0
    twice = evaluation_work(replace(job, evaluations=2))
    assert twice.products == pytest.approx(2 * evaluated.products)


@pytest.mark.parametrize("launches", [1e4, 1e5, 1e6])
def test_a_gpu_computes_while_its_host_launches_and_a_cpu_does_one_after_the_other(launches: float) -> None:
    """Where both take about as long neither hides the other wholly."""
    work = Work(products=1e15, launches=launches)
    gpu, cpu = gpu_named("H200 SXM"), replace(local_machine(), flops={"float32": 1e15})
    alone = [replace(work, launches=0.0), replace(work, products=0.0)]
    computed, launched = (work_seconds(one, gpu) for one in alone)
    assert max(computed, launched) <= work_seconds(work, gpu) < 1.1 * max(computed, launched)
    assert work_seconds(work, gpu) == pytest.approx((computed**OVERLAP + launched**OVERLAP) ** (1 / OVERLAP))
    assert work_seconds(work, cpu) == pytest.approx(sum(work_seconds(one, cpu) for one in alone))


def test_a_gpu_updates_all_tensors_at_once_and_its_host_still_sees_each() -> None:
    """The controls: how wide they are makes no difference, and on a CPU each costs launches of its own."""
    few, many = (work_of(LoRA(targets=targets)).update_launches for targets in (QUERY, ATTENTION))
    wide = work_of(LoRA(rank=64, targets=QUERY)).update_launches
    assert 1 < many / few < 4
    assert wide == few
    cpu = replace(local_machine(), vendor_kind="cpu")
    assert work_of(LORA, machine=cpu).update_launches > 5 * work_of(LORA).update_launches


def test_every_kind_of_work_takes_time() -> None:
    """On a machine that has units for all of it; none is forgotten in the sum."""
    gpu = gpu_named("H200 SXM")
    of_cpus = {"tile_seconds": 1e-5, "noise_seconds": 1e-9, "search_seconds": 1e-8}
    gpu = replace(gpu, efficiency=replace(gpu.efficiency, **of_cpus))
    for field in fields(Work):
        assert work_seconds(Work(**{field.name: 1e15}), gpu) > 0, field.name


def test_work_adds_up() -> None:
    one, two = work_of(LORA), work_of(LORA, Fuse())
    assert (one + two).products == one.products + two.products
    assert one + Work() == one


def test_everything_that_is_billed_has_a_part() -> None:
    rented = job_of(LORA, machine=machines("H200 SXM")[0])
    here = replace(rented, machine=replace(local_machine(), here=True))
    parts, at_home = seconds_by_part(rented), seconds_by_part(here)
    assert {"setup", "download", "idle", *PROCESS_PARTS} == set(parts)
    assert all(parts[name] > 0 for name in ("setup", "import", "tokenise", "download", "load", "train", "save", "idle"))
    assert at_home["setup"] == at_home["download"] == at_home["idle"] == 0
    assert process_seconds(parts) == pytest.approx(sum(parts.values()) - parts["setup"] - parts["download"]
                                                   - parts["idle"])  # fmt: skip
