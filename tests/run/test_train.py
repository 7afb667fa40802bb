"""From a plan to a receipt: what is learned, what is left behind, and how a run stops and continues."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tenfold
from jobs import make_recipe, stepping, write_rows
from tenfold.errors import BudgetReached, InputError, NotFinite, TenfoldError
from tenfold.ledger import open_ledger
from tenfold.machine.local import local_machine
from tenfold.planner import Plan
from tenfold.receipt import Receipt
from tenfold.run.events import Event
from tiny import DECODERS, ENCODERS

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")


def run(recipe: dict[str, Any], observers: tuple[Any, ...] = ()) -> Receipt:
    return tenfold.train(tenfold.plan(recipe), observers)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter-last" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("family", "task"),
    [(family, "classify") for family in ENCODERS]
    + [(family, "sft") for family in DECODERS]
    + [("llama", "text"), ("qwen3", "classify")],
)
def test_every_family_learns(family: str, task: str, tmp_path: Path) -> None:
    receipt = run(
        make_recipe(tmp_path, task, family, train={"epochs": 6}, data={"eval": str(tmp_path / "train.jsonl")})
    )
    losses = [point.metrics["loss"] for point in receipt.curve if point.metrics]
    assert receipt.status == "done"
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "adapter-best" / "adapter_config.json").is_file()


def test_the_receipt_accounts_for_the_run(tmp_path: Path) -> None:
    receipt = run(make_recipe(tmp_path, "classify", "bert", output={"tags": ["nightly"]}))
    assert receipt.measured("steps") == 10
    assert receipt.data["rows_in"] == receipt.data["rows_trained"] == 40
    assert {item.metric for item in receipt.quality} >= {"loss", "accuracy", "macro_f1"}
    assert receipt.bill.usd == pytest.approx(receipt.bill.billed_seconds / 3600, rel=1e-3)
    assert sum(receipt.seconds_by_part.values()) <= receipt.measured("wall_seconds") + 0.1  # type: ignore[operator]
    assert [cut.name for cut in receipt.cuts][:2] == ["fine_tune", "lora"]
    assert all(cut.facts for cut in receipt.cuts)
    assert Receipt.read(tmp_path / "run" / "receipt.json") == receipt
    with open_ledger() as ledger:
        (entry,) = ledger.rows(tag="nightly")
    assert entry.row.run_id == receipt.run_id
    assert entry.row.status == "done"


def test_a_quantized_base_learns_and_the_receipt_says_how(tmp_path: Path) -> None:
    cuts = {"quantize": "nf4", "lora": {"rank": 4}}
    data = {"eval": str(tmp_path / "train.jsonl")}
    receipt = run(make_recipe(tmp_path, cuts=cuts, train={"epochs": 6}, data=data))
    losses = [point.metrics["loss"] for point in receipt.curve if point.metrics]
    assert losses[-1] < losses[0]  # type: ignore[operator]
    assert [cut.name for cut in receipt.cuts][:3] == ["fine_tune", "quantize", "lora"]
    assert "21 linear layers in nf4" in receipt.cuts[1].facts[0]
    plain = run(make_recipe(tmp_path / "plain", train={"epochs": 6}))
    assert not torch.equal(*(next(iter(weights(folder / "run").values())) for folder in (tmp_path, tmp_path / "plain")))
    assert [cut.name for cut in plain.cuts][1] == "lora"


@pytest.mark.parametrize(
    ("cuts", "train", "result"),
    [
        ({"quantize": "int8", "lora": {"rank": 4}}, {}, "adapter-last/adapter_model.safetensors"),
        ({"lora": False}, {"optimizer": "adamw_8bit"}, "model-last/model.safetensors"),
        pytest.param(
            {"lora": False},
            {"optimizer": "adamw_8bit_split", "dtype": "bfloat16"},
            "model-last/model.safetensors",
            marks=pytest.mark.skipif("bfloat16" not in local_machine().flops, reason="no hardware for bfloat16 here"),
        ),
    ],
    ids=["quantized", "eight-bit moments", "split weights"],
)
def test_low_bits_continue_where_they_stopped(
    cuts: dict[str, Any], train: dict[str, Any], result: str, tmp_path: Path
) -> None:
    run(make_recipe(tmp_path / "whole", cuts=cuts, train=train))
    parts = make_recipe(tmp_path / "parts", cuts=cuts, train=train)

    def stop(event: Event) -> None:
        if event.kind == "step" and event.values["step"] == 1 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TenfoldError):
        run(parts, (stop,))
    receipt = run(parts)
    assert receipt.resumes == 1
    expected, found = (load_file(tmp_path / name / "run" / result) for name in ("whole", "parts"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    base = load_file(tmp_path / "whole" / "base-llama" / "model.safetensors")
    assert not any(torch.equal(found[name], base[name]) for name in found.keys() & base.keys()), "all of it learned"


def test_full_fine_tuning_leaves_a_plain_model(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run(make_recipe(tmp_path, cuts={"lora": False}))
    trained = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model-last")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base-llama")
    assert not torch.equal(trained.model.layers[0].mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight)


def test_training_from_scratch_is_possible(tmp_path: Path) -> None:
    receipt = run(
        make_recipe(tmp_path, cuts={"fine_tune": False, "lora": False}, train={"max_steps": 3, "epochs": None})
    )
    assert [cut.name for cut in receipt.cuts if cut.name == "fine_tune"] == []


class StopAt:
    """An observer that sends this process a signal at a step, as a cluster would."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def __call__(self, event: Event) -> None:
        if event.kind == "step" and event.values["step"] == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("step", [1, 4, 5, 9])
@pytest.mark.parametrize(("task", "family", "cuts"), [
    ("sft", "llama", {}),
    ("classify", "bert", {"pack": False}),
    ("sft", "gpt2", {"lora": {"rank": 4, "dropout": 0.2}, "checkpoint": "full"}),
    ("sft", "qwen3", {"lora": False}),
])  # fmt: skip
def test_a_stopped_run_continues_bit_for_bit(
    step: int, task: str, family: str, cuts: dict[str, Any], tmp_path: Path
) -> None:
    train = {"log_every_steps": 1, "schedule": "cosine"}
    whole = make_recipe(tmp_path, task, family, cuts=cuts, train=train, output={"folder": str(tmp_path / "whole")})
    parts = make_recipe(tmp_path, task, family, cuts=cuts, train=train, output={"folder": str(tmp_path / "parts")})
    run(whole)
    with pytest.raises(
        (tenfold_errors := __import__("tenfold.errors", fromlist=["Preempted"])).Preempted,
        match=f"SIGTERM at step {step}",
    ):
        run(parts, (StopAt(step, signal.SIGTERM),))
    assert tenfold_errors.Preempted.exit_code == 75
    receipt = run(parts)
    assert receipt.resumes == 1
    name = "model-last/model.safetensors" if cuts.get("lora") is False else "adapter-last/adapter_model.safetensors"
    expected, found = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert [p.loss for p in Receipt.read(tmp_path / "whole" / "receipt.json").curve] == [p.loss for p in receipt.curve]


def test_a_run_that_starts_elsewhere_ends_elsewhere(tmp_path: Path) -> None:
    """The control of the test above: another seed is another result."""
    run(make_recipe(tmp_path, output={"folder": str(tmp_path / "a")}))
    run(make_recipe(tmp_path, output={"folder": str(tmp_path / "b")}, train={"seed": 1}))
    a, b = (weights(tmp_path / name) for name in "ab")
    assert any(not torch.equal(a[key], b[key]) for key in a)


def test_the_budget_stops_the_run_and_raising_it_continues(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, train={"log_every_steps": 1}, machine={"usd_per_hour": 1e-6})
    plan = tenfold.plan(recipe)
    expensive = plan.machine.model_copy(update={"usd_per_hour": 3600.0})  # a dollar a second
    budget = recipe["budget"] = {"usd": 0.01}
    tight = tenfold.Plan.model_validate(
        {
            **plan.model_dump(mode="json"),
            "machine": expensive.model_dump(mode="json"),
            "recipe": {**plan.model_dump(mode="json")["recipe"], "budget": budget},
        }
    )
    with pytest.raises(BudgetReached, match="budget reached at step 0 of 10"):
        tenfold.train(tight)
    assert Receipt.read(tmp_path / "run" / "receipt.json").status == "stopped_at_budget"
    assert tenfold.train(plan).status == "done"


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(
        tmp_path,
        train={"learning_rate": 10.0, "max_grad_norm": None, "warmup": 0.0, "epochs": 50},
        cuts={"lora": False},
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "base-llama").iterdir()}
    path = tmp_path / "base-llama" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"check packing: the loss of .* is nan and nan before the first step"):
        run(recipe)
    monkeypatch.setattr("tenfold.run.train.check_rig", lambda *_: ())  # as where it shows in a later step
    with pytest.raises(NotFinite, match=r"step 1: loss nan.*train\.jsonl:\d+"):
        run(recipe)
    assert not (tmp_path / "run" / "model-last").exists()
    assert before


def test_other_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, train={"log_every_steps": 1})
    with pytest.raises(Exception, match="SIGTERM"):
        run(recipe, (StopAt(2, signal.SIGTERM),))
    write_rows(tmp_path / "train.jsonl", "sft", seed=9)
    with pytest.raises(InputError, match="trained on other data"):
        run(recipe)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(make_recipe(tmp_path))
    with pytest.raises(InputError, match="run"):
        run(make_recipe(tmp_path, train={"seed": 5}))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_real_signals_to_a_real_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, train={"epochs": 400, "log_every_steps": 1})
    with stepping(tmp_path, recipe) as process:
        assert process.stderr is not None
        time.sleep(0.2)
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == code
    assert "checkpoint saved" in rest.splitlines()[-1]
    assert "Traceback" not in rest


def test_a_missing_tracker_is_refused_before_the_folder_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, output={"trackers": ["mlflow"]})
    monkeypatch.setattr("tenfold.run.trackers.find_spec", lambda name: None)
    with pytest.raises(InputError, match="mlflow is not installed; pip install mlflow"):
        run(recipe)
    assert not (tmp_path / "run").exists()


def test_a_refused_preparation_leaves_the_folder_to_a_corrected_recipe(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    plan = tenfold.plan(recipe)
    (tmp_path / "train.jsonl").write_text("no JSON\n")
    with pytest.raises(InputError, match=r"train\.jsonl:1"):
        tenfold.train(plan)
    assert not (tmp_path / "run" / "run.json").exists()
    assert run(make_recipe(tmp_path, train={"seed": 5})).status == "done"


def no_weights(folder: Path) -> None:
    (folder / "base-llama" / "model.safetensors").unlink()


def no_such_target(folder: Path) -> None:
    """A cut that only the loaded model refuses, which a plan made by hand may hold."""
    plan = json.loads((folder / "plan.json").read_text())
    lora = next(cut for cut in plan["cuts"] if cut["cut"] == "lora")
    lora["targets"] = ["nothing"]
    (folder / "plan.json").write_text(json.dumps(plan))


@pytest.mark.parametrize("spoil", [no_weights, no_such_target])
def test_a_refusal_while_loading_leaves_no_tracker_behind(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tenfold.plan(make_recipe(tmp_path, output={"trackers": ["tensorboard"]})).write(tmp_path / "plan.json")
    spoil(tmp_path)
    with pytest.raises(InputError):
        tenfold.train(Plan.read(tmp_path / "plan.json"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_refused_continuation_starts_no_tracker(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(make_recipe(tmp_path, train={"save_every_steps": 1}))
    before = sorted((tmp_path / "run").rglob("*"))
    recipe = make_recipe(tmp_path, train={"save_every_steps": 1}, output={"trackers": ["tensorboard"]})
    write_rows(tmp_path / "train.jsonl", "sft", rows=48, seed=7)
    with pytest.raises(InputError, match="trained on other data"):
        run(recipe)
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_tracker_that_refuses_does_so_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")

    def refuse(*_: object) -> None:
        raise InputError("output.trackers: no login")

    seen: list[str] = []
    monkeypatch.setattr("tenfold.run.train.make_tracker", refuse)
    with pytest.raises(InputError, match="no login"):
        run(make_recipe(tmp_path, output={"trackers": ["tensorboard"]}), (lambda event: seen.append(event.kind),))
    assert "note" in seen, "the model was loaded and its cuts applied"
    assert "step" not in seen
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_trackers_see_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(make_recipe(tmp_path, output={"trackers": ["tensorboard"]}))
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
