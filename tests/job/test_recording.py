"""Shapes of micro-batches on paper are those of the layout, and cost what compiling and recording them takes."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from paper import CONFIG, machines
from tenfold.cuts import Cut, FineTune, Fuse, LoRA, Pack, on_paper
from tenfold.data.tokenize import Sample
from tenfold.job import Job, of_one_length, seconds_by_part
from tenfold.job.recording import EAGER_CALLS, MOST_GRAPHS, SHORTEST_LIMIT, TOKENS_A_PLACE, new_shapes
from tenfold.job.seconds import SIZES_AS_SYMBOLS
from tenfold.rig import graphs, ragged
from tenfold.rig.packing import PackedLayout
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

STEADY = (LoRA(), Pack(2048), Fuse(compile=True))
UNIFORM = Workload(((512, 640),), loss_tokens=640 * 511)
BATCH = 16


def lengths_of(rows: int) -> list[int]:
    draw = Random(0)
    return [round(draw.lognormvariate(5.0, 0.6)) + 2 for _ in range(rows)]


def workload_of(lengths: Sequence[int]) -> Workload:
    return Workload(tuple(sorted(Counter(lengths).items())), sum(lengths) - len(lengths), sum(lengths) // 100)


def job_of(*cuts: Cut, workload: Workload, **changes: Any) -> Job:
    shape = shape_from_config("m", CONFIG)
    dense = Job(shape, workload, machines("H200 SXM")[0], "text", BATCH, 4, None, 1.0, evaluations=1)
    return on_paper((FineTune(), *cuts), replace(dense, **changes))


def laid_out(lengths: Sequence[int]) -> list[Any]:
    """Shapes of one epoch's micro-batches, as recorded passes tell them apart."""
    samples = [Sample(array("I", [4] * n), bytes([0, *[1] * (n - 1)]), None, "a", 1) for n in lengths]
    layout = PackedLayout(2048, 0, steady=True)
    steps = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
    return [graphs.shape_key(batch) for step in steps for batch in layout(step)]


def test_constants_are_those_of_the_rig() -> None:
    assert (EAGER_CALLS, MOST_GRAPHS) == (graphs.EAGER_CALLS, graphs.MOST_GRAPHS)
    assert (SHORTEST_LIMIT, TOKENS_A_PLACE) == (ragged.SHORTEST_LIMIT, ragged.TOKENS_A_PLACE)


@pytest.mark.parametrize("rows", [320, 1280])
def test_new_shapes_are_about_those_of_the_layout(rows: int) -> None:
    lengths = lengths_of(rows)
    calls = Counter(laid_out(lengths))
    eager = sum(min(EAGER_CALLS, count) for count in calls.values())
    recorded = sum(count > EAGER_CALLS for count in calls.values())
    found = new_shapes(job_of(*STEADY, workload=workload_of(lengths)))
    assert found.eager == pytest.approx(eager, rel=0.35)
    assert found.recorded == pytest.approx(recorded, rel=0.35, abs=2)
    assert found.eager < 0.8 * sum(calls.values()), "the control: most micro-batches have a shape that was seen"


def test_rows_of_one_length_have_one_shape() -> None:
    assert len(set(laid_out([512] * 640))) == 1
    found = new_shapes(job_of(*STEADY, workload=UNIFORM))
    assert (found.eager, found.recorded) == (EAGER_CALLS, 1.0)


def test_only_recorded_passes_have_new_shapes() -> None:
    rows = workload_of(lengths_of(320))
    for cuts in ((LoRA(), Pack(2048), Fuse()), (LoRA(), Fuse(compile=True))):
        assert new_shapes(job_of(*cuts, workload=rows)) == (0.0, 0.0), cuts
    steady = job_of(*STEADY, workload=rows)
    assert new_shapes(steady.keeping(0, 2)) == (0.0, 0.0)
    assert new_shapes(steady).eager > 0


@pytest.mark.parametrize(
    ("lengths", "cuts", "one"),
    [
        ([512] * 64, STEADY, True),
        ([500] * 64, STEADY, False),  # filled up to an eighth of the budget
        ([500] * 64, (LoRA(), Fuse(compile=True)), True),
        ([512] * 63 + [511], STEADY, False),
        ([512] * 63 + [511], (LoRA(), Fuse(compile=True)), False),
    ],
)
def test_rows_of_one_length_are_those_that_need_no_filler(lengths: list[int], cuts: Any, one: bool) -> None:
    assert of_one_length(job_of(*cuts, workload=workload_of(lengths))) is one
    if cuts is STEADY:
        (first,) = PackedLayout(2048, 0, steady=True)([Sample(array("I", [4] * n), bytes(n), None, "a", 1)
                                                       for n in lengths[-4:]])  # fmt: skip
        assert first.segments.uniform is one  # type: ignore[union-attr]


def test_layers_are_compiled_longer_for_mixed_lengths_and_not_at_all_without() -> None:
    mixed, uniform = job_of(*STEADY, workload=workload_of(lengths_of(320))), job_of(*STEADY, workload=UNIFORM)
    known = mixed.machine.overheads
    assert seconds_by_part(mixed)["compile"] > SIZES_AS_SYMBOLS * known.compile_seconds
    assert known.compile_seconds < seconds_by_part(uniform)["compile"] < 1.1 * known.compile_seconds
    assert seconds_by_part(job_of(LoRA(), Fuse(), workload=UNIFORM))["compile"] == 0


def test_longer_runs_pay_no_more_for_shapes_that_they_know() -> None:
    once, often = (job_of(*STEADY, workload=UNIFORM, epochs=epochs) for epochs in (1.0, 8.0))
    assert seconds_by_part(once)["compile"] == pytest.approx(seconds_by_part(often)["compile"])
    assert seconds_by_part(often)["train"] == pytest.approx(8 * seconds_by_part(once)["train"])


def test_the_compiler_and_the_first_pass_take_their_time() -> None:
    compiled, eager = (job_of(LoRA(), Pack(2048), fuse, workload=UNIFORM) for fuse in (Fuse(compile=True), Fuse()))
    known = eager.machine.overheads
    assert known.compiler_seconds > 0 < known.first_pass_seconds
    assert seconds_by_part(compiled)["load"] - seconds_by_part(eager)["load"] == pytest.approx(known.compiler_seconds)
    assert seconds_by_part(eager)["check"] > known.first_pass_seconds
    assert seconds_by_part(replace(eager, checked=False))["check"] == 0
