"""The checks of the model pass on every tiny family, leave it as it was, and see a fault of their kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

import tenfold.checks.layout as layout
from rigs import make_rig, make_rows
from tenfold.checks import preflight
from tenfold.checks.exported import export
from tenfold.checks.layout import TOKENS, Trial, accumulation, few_rows, packing
from tenfold.cuts import Cut, Fuse, LoRA, Pack, on_rig
from tenfold.data import Sample
from tenfold.rig.backward import Backward, Loss
from tenfold.rig.batch import Batch
from tenfold.rig.chunked_loss import chunk_loss
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.merging import merge_products
from tenfold.rig.rig import Rig, Task
from tenfold.rig.segments import segment_rows
from tiny import DECODERS, FAMILIES

check_rig = partial(preflight.check_rig, limit_seconds=float("inf"))
"""However busy this computer is."""

CASES: list[tuple[str, Task]] = [(family, "classify") for family in FAMILIES] + [(family, "sft") for family in DECODERS]
LORA, PACK = LoRA(rank=2, alpha=4.0), Pack(tokens=200)


def state(rig: Rig) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in (*rig.model.parameters(), *rig.model.buffers())]


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_sound_model_passes_and_is_left_as_it_was(family: str, task: Task) -> None:
    cuts: tuple[Cut, ...] = (LORA, PACK) if task == "classify" else (LORA, PACK, Fuse(loss_rows=16))
    rig = on_rig(cuts, make_rig(family, task))
    before, random = state(rig), torch.get_rng_state()
    found = check_rig(rig, make_rows(task))
    assert [finding.verdict for finding in found] == ["ok"] * 3, found
    assert all(torch.equal(a, b) for a, b in zip(before, state(rig), strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in rig.model.parameters()) and rig.model.training


def test_all_weights_and_padded_rows_pass() -> None:
    found = check_rig(make_rig("llama", "text"), make_rows("text"))
    assert [finding.verdict for finding in found] == ["ok"] * 3
    assert found[2].text == "no adapter: the model is written as it is"


def rows_that_see_each_other(rig: Rig) -> Rig:
    def merge(batch: Batch) -> Batch:
        assert batch.segments is not None
        return replace(batch, segments=segment_rows([batch.input_ids.numel()]))

    return replace(rig, layout=lambda samples: [merge(batch) for batch in rig.layout(samples)])


def a_row_less(rig: Rig) -> Rig:
    return replace(rig, layout=lambda samples: rig.layout(samples[: max(1, len(samples) - 1)]))


def a_mean_of_means(rig: Rig) -> Rig:
    """Each micro-batch divided by its own count, and not by that of the step."""
    own: Loss = lambda model, batch: rig.loss(model, batch) / batch.loss_count  # noqa: E731
    return replace(rig, loss=own)


def noisy_passes(rig: Rig) -> Rig:
    """What dropout that does not know of evaluation would do."""
    noisy: Loss = lambda model, batch: rig.loss(model, batch) * (1 + 0.01 * torch.rand(()))  # noqa: E731
    return replace(rig, loss=noisy)


FAULTS: list[tuple[Callable[..., object], Callable[[Rig], Rig]]] = [
    (packing, rows_that_see_each_other),
    (packing, a_row_less),
    (packing, noisy_passes),
    (accumulation, a_mean_of_means),
    (accumulation, rows_that_see_each_other),
]


@pytest.mark.parametrize(("check", "spoil"), FAULTS, ids=lambda value: value.__name__)
def test_another_result_of_another_layout_is_refused(check: Callable[..., object], spoil: Callable[[Rig], Rig]) -> None:
    rig = spoil(on_rig((LORA, PACK), make_rig("llama", "sft")))
    found = check(Trial(rig, few_rows(make_rows("sft"))))
    assert found.verdict == "refusal", found  # type: ignore[attr-defined]
    assert "set cuts.pack: false" in found.text  # type: ignore[attr-defined]


def test_rounding_in_bfloat16_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = on_rig((LORA, PACK), replace(make_rig("llama", "sft"), dtype=torch.bfloat16))
    rows = few_rows(make_rows("sft"))
    assert packing(Trial(rig, rows)).verdict == "ok"
    monkeypatch.setattr(layout, "TOLERANCE", {torch.bfloat16: 1e-3})
    assert packing(Trial(rig, rows)).verdict == "warning"
    assert packing(Trial(rows_that_see_each_other(rig), rows)).verdict == "refusal"


def test_a_loss_that_is_no_number_is_refused() -> None:
    rig = on_rig((LORA,), make_rig("llama", "sft"))
    broken: Loss = lambda model, batch: rig.loss(model, batch) * float("nan")  # noqa: E731
    assert packing(Trial(replace(rig, loss=broken), make_rows("sft"))).verdict == "refusal"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_merge_that_forgets_the_scale_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = on_rig((LORA,), make_rig(family, "sft"))
    right = AdaptedLinear.delta
    monkeypatch.setattr(AdaptedLinear, "delta", lambda self: right(self) / self.scale)
    before = state(rig)
    found = export(rig, make_rows("sft"))
    assert found.verdict == "refusal" and "merged model's logits differ" in found.text
    assert all(torch.equal(a, b) for a, b in zip(before, state(rig), strict=True))


def test_an_adapter_that_is_written_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import tenfold.checks.exported as exported

    right = exported.read_tensors
    monkeypatch.setattr(
        exported, "read_tensors", lambda folder: {k: t.bfloat16().float() for k, t in right(folder).items()}
    )
    found = export(on_rig((LORA,), make_rig("llama", "sft")), make_rows("sft"))
    assert found.verdict == "refusal" and "written and read again" in found.text


def test_a_disk_without_room_for_a_trial_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import tenfold.checks.exported as exported

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exported, "write_adapter", full)
    rig = on_rig((LORA,), make_rig("llama", "sft"))
    before = state(rig)
    found = export(rig, make_rows("sft"))
    assert found.verdict == "left_out" and "No space left" in found.text
    assert all(torch.equal(a, b) for a, b in zip(before, state(rig), strict=True))


def test_what_there_is_no_time_for_is_said() -> None:
    rig = on_rig((LORA,), make_rig("llama", "sft"))
    assert [f.verdict for f in check_rig(rig, make_rows("sft"), limit_seconds=-1)] == ["left_out"] * 3


def test_passes_are_neither_compiled_nor_recorded() -> None:
    def recorded(*_: object) -> torch.Tensor:
        raise AssertionError("a check must not be recorded")

    backward: Backward = recorded
    rig = replace(on_rig((LORA,), make_rig("llama", "sft")), backpropagate=backward)
    assert packing(Trial(rig, make_rows("sft"))).verdict == "ok"


def test_compiled_layers_are_not_compiled_for_the_shapes_of_a_check() -> None:
    from torch._dynamo.utils import counters

    rig = on_rig((LORA, PACK, Fuse(loss_rows=16, compile=True)), make_rig("llama", "sft"))
    counters.clear()
    found = check_rig(rig, make_rows("sft"))
    assert [finding.verdict for finding in found] == ["ok", "ok", "left_out"], found
    assert not counters["stats"]


@pytest.mark.parametrize(
    ("mask", "start", "learned"),
    [
        (None, 0, None),
        (bytes([0] * 700 + [1] * 100), 800 - TOKENS, 100),
        (bytes([0] * 300 + [1] * 100 + [0] * 400), 400 - TOKENS, 100),
        (bytes([0, *[1] * 10, *[0] * 789]), 0, 10),
        (bytes([0, *[1] * 799]), 800 - TOKENS, TOKENS - 1),
    ],
)
def test_of_a_long_row_a_piece_that_bears_loss(mask: bytes | None, start: int, learned: int | None) -> None:
    row = Sample(list(range(800)), mask, None, "rows.jsonl", 1)
    (piece,) = few_rows([row])
    assert piece.input_ids == list(range(start, start + TOKENS))
    assert (piece.loss_mask and sum(piece.loss_mask)) == learned
    assert mask is None or (piece.loss_mask is not None and piece.loss_mask[0] == 0)


def test_few_rows_are_short_and_of_different_length() -> None:
    rows = make_rows("sft", count=100)
    chosen = few_rows(rows)
    lengths = [len(row.input_ids) for row in chosen]
    assert len(set(lengths)) == len(lengths) == 4
    assert max(lengths) <= sorted({len(row.input_ids) for row in rows[:64]})[3]
    assert few_rows(rows[:1]) == rows[:1] and len(few_rows(rows[:3])) == 3


def test_the_model_runs_no_more_often_than_what_is_compared_needs() -> None:
    """Forward passes before the first step, each counted: what packing and merging change, before and after; the
    logits; the step of few rows in one piece, each of four alone, and in two."""
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    rig = on_rig((LORA,), make_rig("llama", "sft"))
    rig.model.base_model.register_forward_pre_hook(count)
    rig = on_rig((PACK,), rig)
    assert passes == 2
    rig = chunk_loss(rig, 16, narrow=False)
    assert passes == 2 + 1
    assert merge_products(rig)
    assert passes == 3 + 2
    check_rig(rig, make_rows("sft"))
    assert passes == 5 + 1 + 4 + 2
