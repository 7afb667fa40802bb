"""What the plan counts for the checks before the first step is what they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tenfold.checks.layout as layout
from paper import machines
from rigs import make_rig, make_rows
from tenfold.checks.preflight import check_rig
from tenfold.cuts import Cut, FineTune, Fuse, LoRA, Quantize, on_paper, on_rig
from tenfold.data.tokenize import Sample
from tenfold.job import Job, Work, checking_work, seconds_by_part
from tenfold.rig.batch import Batch
from tenfold.shape import read_shape
from tenfold.workload import Workload
from tiny import tiny_model

ROWS = [row for number, row in enumerate(make_rows("sft", 12)) if number in (0, 1, 2, 4)]


def job_of(folder: str, *cuts: Cut) -> Job:
    workload = Workload.from_samples(ROWS)
    on = machines("H200 SXM")[0]
    return on_paper((FineTune(), *cuts), Job(read_shape(folder), workload, on, "sft", 4, 4, None, 1.0))


def test_tokens_and_micro_batches_are_those_of_the_checks(tmp_path) -> None:
    assert len({len(row.input_ids) for row in ROWS}) == len(ROWS)
    rig = on_rig((LoRA(rank=4),), make_rig("llama", "sft"))
    passes, exported = list[Batch](), list[Batch]()

    def layout(samples: Sequence[Sample]) -> list[Batch]:
        batches = rig.layout(samples)
        (exported if len(samples) == 2 else passes).extend(batches)
        return batches

    assert [found.verdict for found in check_rig(replace(rig, layout=layout), ROWS)] == ["ok"] * 3
    tiny_model("llama", "sft").save_pretrained(tmp_path)
    both, alone = (checking_work(job_of(str(tmp_path), LoRA(rank=4), *more)) for more in ((), (Fuse(compile=True),)))
    assert (alone.micro_batches, alone.tokens) == (len(passes), sum(batch.tokens for batch in passes))
    counted = both.tokens - alone.tokens  # of the two shortest rows; the plan counts them as half of all
    assert sum(batch.tokens for batch in exported) <= counted <= 2 * sum(batch.tokens for batch in exported)


def test_long_rows_are_run_in_part(tmp_path) -> None:
    tiny_model("llama", "sft").save_pretrained(tmp_path)
    job = job_of(str(tmp_path), LoRA(rank=4))
    long = replace(job, workload=Workload(((layout.TOKENS, 4),), 4 * layout.TOKENS))
    longer = replace(job, workload=Workload(((10 * layout.TOKENS, 4),), 40 * layout.TOKENS))
    assert checking_work(longer) == checking_work(long)
    assert checking_work(longer, 10 * layout.TOKENS).tokens == 10 * checking_work(long).tokens


def test_nothing_is_updated_and_nothing_counted_where_nothing_is_checked(tmp_path) -> None:
    tiny_model("llama", "sft").save_pretrained(tmp_path)
    job = job_of(str(tmp_path), LoRA(rank=4))
    work = checking_work(job)
    assert (work.update_bytes, work.update_launches, work.searches, work.steps) == (0, 0, 0, 0)
    assert work.products > 0
    assert checking_work(replace(job, checked=False)) == Work()
    assert seconds_by_part(job)["check"] > 0 == seconds_by_part(replace(job, checked=False))["check"]


def test_export_is_tried_on_adapters_of_plain_layers_alone(tmp_path) -> None:
    """checks/exported leaves the others to `tenfold merge`."""
    tiny_model("llama", "sft").save_pretrained(tmp_path)
    tried = checking_work(job_of(str(tmp_path), LoRA(rank=4))).tokens
    for cuts in ((), (LoRA(rank=4), Fuse(compile=True)), (Quantize("int8"), LoRA(rank=4))):
        assert checking_work(job_of(str(tmp_path), *cuts)).tokens < tried
