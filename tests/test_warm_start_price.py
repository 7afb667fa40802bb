"""What a warm start is on paper, beside what it is for real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from rigs import make_rig as make_tiny_rig
from shapes import make_shape
from tenfold.cuts import Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, WarmStart, on_paper, on_rig
from tenfold.cuts.warm_start import DISTIL_LEAST_POSITIONS, DISTIL_POSITIONS, Method
from tenfold.data.tokenize import Sample
from tenfold.data.tokenizer import read_tokenizer
from tenfold.job import Job, bytes_by_kind, flops_by_part
from tenfold.rig.rows import learn_rows
from tenfold.rig.warm.distil import distilled_rows
from tenfold.rig.warm.request import Request
from tenfold.shape import read_shape
from tenfold.vocabulary import choose_tokens, extend, transfer
from tenfold.workload import NewVocabulary, Workload
from test_job import UNEQUAL, VOCABULARY, counted_on_paper, kept_on_paper, make_job, make_rig, measure, rows_of
from tiny import FAMILIES, tiny_folder
from vocabularies import domain_texts, growing_folder, plain_texts

LORA = LoRA(rank=8, alpha=16.0)
ROWS = 100
TOKENS = tuple(f"t{number}" for number in range(ROWS))
COMBINATIONS: dict[str, tuple[Cut, ...]] = {
    "lora": (LORA,),
    "lora pack fuse": (LORA, Pack(tokens=4096), Fuse(loss_rows=32)),
    "lora fuse checkpoint": (LORA, Fuse(loss_rows=32), Checkpoint(layers=1)),
}


def warm_job(family: str, lengths: Sequence[int] = UNEQUAL, rows: int = ROWS) -> Job:
    """A job whose new vocabulary is as large as its old one: what is compared is rows that learn."""
    job = make_job(family, rows_of("text", lengths))
    new = NewVocabulary(job.workload, TOKENS[:rows], VOCABULARY, rows)
    return replace(job, workload=replace(job.workload, new_vocabulary=new))


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_predicts_bytes_and_flops_of_rows_that_learn(family: str, name: str) -> None:
    samples = rows_of("text", UNEQUAL)
    rig = make_rig(family, len(samples))
    count = learn_rows(rig.model, range(VOCABULARY - ROWS, VOCABULARY))
    measured_bytes, measured_flops = measure(on_rig(COMBINATIONS[name], rig), samples)
    job = on_paper((FineTune(), WarmStart(tokens=TOKENS), *COMBINATIONS[name]), warm_job(family))
    assert job.row_parameters == count
    assert kept_on_paper(job) == pytest.approx(measured_bytes, rel=0.06)
    assert counted_on_paper(job) == pytest.approx(measured_flops, rel=0.02)
    without = on_paper((FineTune(), *COMBINATIONS[name]), warm_job(family))
    assert counted_on_paper(without) != pytest.approx(measured_flops, rel=0.02), "the control: frozen embeddings"


def test_rows_have_moments_and_the_rest_of_the_table_has_none() -> None:
    before = on_paper((FineTune(), LORA), warm_job("llama"))
    after = on_paper((FineTune(), WarmStart(tokens=TOKENS), LORA), warm_job("llama"))
    kinds, changed = bytes_by_kind(before), bytes_by_kind(after)
    rows = 2 * ROWS * after.shape.hidden_size  # llama's two tables
    assert changed["optimizer"] - kinds["optimizer"] == 8 * rows
    assert changed["adapters"] - kinds["adapters"] == 4 * rows


def test_a_shorter_division_is_what_is_priced() -> None:
    job = warm_job("llama")
    shorter = make_job("llama", rows_of("text", [length // 2 for length in UNEQUAL])).workload
    new = NewVocabulary(shorter, TOKENS, VOCABULARY + ROWS, ROWS)
    job = FineTune().price(replace(job, workload=replace(job.workload, new_vocabulary=new)))
    changed = WarmStart(tokens=TOKENS).price(job)
    assert changed.tokens_trained == shorter.tokens < job.workload.tokens
    assert changed.shape.vocab_size == VOCABULARY + ROWS
    assert changed.shape.parameters - job.shape.parameters == 2 * ROWS * job.shape.hidden_size
    assert flops_by_part(changed)["linear forward"] < flops_by_part(job)["linear forward"]
    back = changed.uncut()
    assert (back.shape, back.workload.tokens) == (job.shape, job.workload.tokens)


def preparation_flops(job: Job, rows: int, method: Method) -> float:
    return WarmStart(tokens=TOKENS[:rows], initialise=method).price(job).preparation_flops


def test_distillation_is_paid_for_by_the_row() -> None:
    """Above the least that is read."""
    least = DISTIL_LEAST_POSITIONS // DISTIL_POSITIONS

    def price(rows: int) -> float:
        job = FineTune().price(warm_job("llama", [200] * 100, rows))
        return preparation_flops(job, rows, "distil") - preparation_flops(job, rows, "subtokens")

    assert 2 * least * DISTIL_POSITIONS < 200 * 100
    assert 0 < price(least // 4) < price(least // 2) < price(least)
    assert price(2 * least) > 2 * price(least) * 0.99, "twice the positions, each by as many rows or more"


def test_distillation_multiplies_as_much_as_is_foretold(tmp_path: Path) -> None:
    """In texts where new tokens are as much rarer than where they are learned as where that was measured."""
    texts = [*domain_texts(200), *plain_texts(300, seed=1)]
    growing_folder(tmp_path)
    old = read_tokenizer(tmp_path)
    shape = read_shape(str(tmp_path))
    tokens = choose_tokens(texts, old, shape, 20).tokens
    new = extend(old, tokens)
    request = Request(AutoModelForCausalLM.from_pretrained(tmp_path), transfer(old, new), old, new, texts)
    with FlopCounterMode(display=False) as counter:
        distilled_rows(request)
    before, after = (
        Workload.from_samples(Sample(ids, b"\1" * len(ids), None, "", 1) for ids in one.encode_batch(texts, False))
        for one in (old, new)
    )
    change = NewVocabulary(after, tokens, request.transfer.rows, len(tokens))
    job = replace(make_job("llama", ()), shape=shape, workload=replace(before, new_vocabulary=change))
    job = FineTune().price(job)
    foretold = preparation_flops(job, 20, "distil") - preparation_flops(job, 20, "subtokens")
    assert foretold == pytest.approx(counter.get_total_flops(), rel=0.15)


@pytest.mark.parametrize(
    "cut",
    [
        WarmStart(keep_layers=(0, 2)),
        WarmStart(grow_layers=2),
        WarmStart(intermediate_size=16),
        WarmStart(keep_layers=(1,), grow_layers=1, intermediate_size=24),
        WarmStart(keep_layers=(1,), grow_layers=1, intermediate_size=24, hidden_size=16, num_attention_heads=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "phi3", "gpt2"])
def test_other_blocks_have_the_weights_that_are_foretold(family: str, cut: WarmStart, tmp_path: Path) -> None:
    rig = make_tiny_rig(family, "sft")
    before = rig.model.num_parameters()
    after = cut.apply(rig).model.num_parameters()
    shape = read_shape(str(tiny_folder(tmp_path / family, family)))
    job = FineTune().price(replace(make_job("llama", rows_of("text", UNEQUAL)), shape=shape))
    assert shape.parameters == before
    assert cut.price(job).shape.parameters == pytest.approx(after, rel=0.01)
    assert after != pytest.approx(before, rel=0.01), "the control"


def test_a_grown_block_learns_in_full() -> None:
    job = FineTune().price(warm_job("llama"))
    grown = LORA.price(WarmStart(grow_layers=1).price(job))
    assert grown.trained_parameters - grown.adapter_parameters == grown.shape.parameters_per_block
    rig = on_rig((WarmStart(grow_layers=1), LORA), make_rig("llama", 4))
    learned = sum(w.numel() for name, w in rig.trainable if "lora_" not in name)
    assert learned == grown.shape.parameters_per_block
    assert isinstance(rig.model, torch.nn.Module)


def test_what_changes_nothing_is_no_other_job() -> None:
    job = FineTune().price(warm_job("llama"))
    assert WarmStart(keep_layers=(0, 1, 2)).price(job) == job
    assert WarmStart(tokens=TOKENS).price(replace(job, pretrained=False)) == replace(job, pretrained=False)
    assert make_shape("llama").with_blocks(3, 64) == make_shape("llama")
    assert set(FAMILIES)
