"""The baselines in their real processes, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tenfold.data.tokenize import Sample
from tenfold.errors import InputError, TenfoldError
from tenfold.prove.baseline import run_naive, run_peer
from tenfold.prove.exchange import (
    IGNORED,
    BaselineRequest,
    BaselineResult,
    read_rows,
    write_rows,
)
from tenfold.prove.peer import truncation_note
from tenfold.prove.settings import NOTES, changed_settings
from tiny import VOCABULARY, tiny_folder

LABELS = 3
TRAIN_ROWS = 40
STEPS_PER_EPOCH = TRAIN_ROWS // 8
"""Both libraries train 8 rows per step by default."""

EPOCHS = 3


def samples(task: str, rows: int) -> list[Sample]:
    """Rows of 6 to 12 tokens whose first half bears no loss; in classify the first token gives the label away."""
    made: list[Sample] = []
    for row in range(rows):
        ids = [4 + row % LABELS, *(4 + (row * 7 + place) % (VOCABULARY - 12) for place in range(5 + row % 7))]
        half = len(ids) // 2
        mask = None if task == "classify" else bytes(half) + b"\x01" * (len(ids) - half)
        made.append(Sample(ids, mask, row % LABELS if task == "classify" else None, "rows.jsonl", row + 1))
    return made


@pytest.fixture
def request_for(tmp_path: Path):
    """Makes a request with its rows and model on disk."""

    def make(task: str, **settings: object) -> BaselineRequest:
        pytest.importorskip("accelerate")
        write_rows(tmp_path / "train.jsonl", samples(task, TRAIN_ROWS))
        write_rows(tmp_path / "eval.jsonl", samples(task, 12))
        given: dict[str, object] = {
            "model": str(tiny_folder(tmp_path / "model", "bert" if task == "classify" else "llama")),
            "task": task,
            "train_rows": tmp_path / "train.jsonl",
            "eval_rows": tmp_path / "eval.jsonl",
            "pad_id": 0,
            "labels": LABELS if task == "classify" else None,
            "threads": 1,
        }
        return BaselineRequest.model_validate(given | settings)

    return make


def check_costs(result: BaselineResult) -> None:
    """What holds for every baseline that ran."""
    assert result.steps_total == STEPS_PER_EPOCH * EPOCHS
    assert 0 < result.first_step_seconds <= result.train_seconds < result.wall_seconds
    assert sum(result.seconds_by_part.values()) == pytest.approx(result.wall_seconds)
    assert 0 < result.useful_tokens < result.padded_tokens
    if sys.platform == "linux" and result.device == "cpu":
        assert result.idle_bytes is not None
        assert result.peak_bytes is not None
        assert result.idle_bytes < result.peak_bytes
    assert set(result.versions) >= {"torch", "transformers"}
    assert len(result.notes) == len(result.settings)


def test_naive_trains_a_classifier_to_the_end(request_for) -> None:
    result = run_naive(request_for("classify"))
    check_costs(result)
    assert result.steps_done == result.steps_total
    assert result.measured_fraction == 1
    assert result.full_train_seconds == result.train_seconds
    assert result.how == "measured, all 15 steps"
    assert result.useful_tokens == EPOCHS * sum(len(sample.input_ids) for sample in samples("classify", TRAIN_ROWS))
    assert result.scores is not None
    assert result.scores.accuracy is not None
    assert result.scores.macro_f1 is not None


def test_naive_sample_is_extrapolated(request_for) -> None:
    result = run_naive(request_for("sft", max_steps=3))
    check_costs(result)
    assert result.steps_done == 3
    assert result.measured_fraction == pytest.approx(3 / 15)
    steady = (result.train_seconds - result.first_step_seconds) / 2
    assert result.full_train_seconds == pytest.approx(result.first_step_seconds + 14 * steady)
    assert result.full_seconds > result.wall_seconds
    assert result.how == "extrapolated from 3 of 15 steps"
    assert result.scores is not None
    assert result.scores.accuracy is None


def test_peer_trains_adapters_until_its_time_is_over(request_for) -> None:
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    result = run_peer(request_for("sft", max_seconds=0.001))
    check_costs(result)
    assert result.library == "trl.SFTTrainer"
    assert set(result.versions) >= {"trl", "peft"}
    assert result.steps_done == 1
    assert result.full_train_seconds == pytest.approx(result.first_step_seconds * 15)


def test_a_failed_process_says_its_last_line(request_for, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(TenfoldError, match=r"^naive baseline failed: .*nowhere") as caught:
        run_naive(request_for("text").model_copy(update={"train_rows": missing}))
    assert "\n" not in str(caught.value)


def test_impossible_requests_are_refused_before_any_process(request_for) -> None:
    with pytest.raises(InputError, match="SFTTrainer does not train classifiers"):
        run_peer(request_for("classify"))
    with pytest.raises(InputError, match="number of labels"):
        run_naive(request_for("classify", labels=None))


def test_rows_keep_ids_masks_and_labels(tmp_path: Path) -> None:
    sample = Sample([5, 6, 7, 8], b"\x00\x00\x01\x01", None, "rows.jsonl", 1)
    write_rows(tmp_path / "rows.jsonl", [sample, *samples("classify", 2)])
    masked, *classified = read_rows(tmp_path / "rows.jsonl")
    assert masked.token_labels() == [IGNORED, IGNORED, 7, 8]
    assert [row.label for row in classified] == [0, 1]
    assert classified[0].input_ids == list(samples("classify", 2)[0].input_ids)


def test_masked_tokens_bear_no_loss(request_for) -> None:
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    from tenfold.prove.measure import collate, evaluate

    request = request_for("sft")
    rows = read_rows(request.train_rows)
    batch = collate(rows, pad_id=0)
    assert int((batch["labels"] != IGNORED).sum()) == sum(row.loss_mask.count("1") for row in rows if row.loss_mask)
    assert bool((batch["labels"][batch["attention_mask"] == 0] == IGNORED).all())

    model = AutoModelForCausalLM.from_pretrained(request.model)
    loss = evaluate(model, rows, pad_id=0).loss
    one_by_one = [(evaluate(model, [row], 0).loss, (row.loss_mask or "").count("1")) for row in rows]
    assert loss == pytest.approx(sum(each * count for each, count in one_by_one) / sum(n for _, n in one_by_one))
    changed = [row.model_copy(update={"loss_mask": "0" + "1" * (len(row.input_ids) - 1)}) for row in rows]
    assert evaluate(model, changed, pad_id=0).loss != pytest.approx(loss)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 0, 1, 1], [0, 0, 0, 0], (2 * 2 / 6 + 0) / 2),
        ([0, 1], [1, 0], 0.0),
        ([0, 0], [0, 2], (2 / 3 + 0) / 2),
    ],
)
def test_macro_f1(truth: list[int], predicted: list[int], expected: float) -> None:
    pytest.importorskip("torch")
    from tenfold.prove.measure import macro_f1

    assert macro_f1(truth, predicted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("wish", "has_cuda", "expected"),
    [
        ({}, True, {"report_to", "disable_tqdm", "save_strategy"}),
        ({}, False, {"report_to", "disable_tqdm", "save_strategy", "use_cpu"}),
        ({"seed": 7, "epochs": 3.0}, True, {"report_to", "disable_tqdm", "save_strategy", "seed"}),
        ({"seed": 7, "epochs": 1.0}, True, {"report_to", "disable_tqdm", "save_strategy", "seed", "num_train_epochs"}),
    ],
)
def test_few_settings_are_changed_and_each_is_noted(
    wish: dict[str, object], has_cuda: bool, expected: set[str]
) -> None:
    base = {"model": "m", "task": "text", "train_rows": "rows.jsonl", "pad_id": 0}
    settings = changed_settings(BaselineRequest.model_validate(base | wish), has_cuda)
    assert set(settings) == expected
    assert set(settings) <= set(NOTES)


def test_truncation_by_the_peer_is_noted(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", samples("text", 3))
    rows = read_rows(tmp_path / "rows.jsonl")
    assert truncation_note(rows, 1024) == []
    assert truncation_note(rows, None) == []
    assert truncation_note(rows, 6) == ["max_length: TRL's default of 6 truncates 2 rows by 3 tokens in all."]


def test_asking_for_a_baseline_imports_no_torch() -> None:
    code = "import sys, tenfold.prove.baseline, tenfold.prove.naive, tenfold.prove.peer; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert json.loads(shown.strip().lower()) is False
