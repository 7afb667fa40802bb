"""The contract that every cut keeps. A new cut adds its row to CASES."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import pytest
import torch

from rigs import make_rig, make_rows, step_gradient
from tenfold.cuts import CUTS, Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, WarmStart, cut_from_dict, on_rig
from tenfold.errors import InputError, NoEffect
from tenfold.rig.model import build_rig, load_pretrained
from tenfold.rig.rig import Rig, Source, Task
from test_job import make_plain_job
from tiny import tiny_folder
from vocabularies import growing_folder


@dataclass(frozen=True)
class Case:
    """A cut with settings that are not its defaults, and a task it works on."""

    cut: Cut
    task: Task = "sft"


CASES = {
    "fine_tune": Case(FineTune()),
    "warm_start": Case(
        WarmStart(tokens=("my", "myo"), initialise="subtokens", rows_first=0.25, keep_layers=(0, 2), grow_layers=1)
    ),
    "quantize": Case(Quantize(storage="int8")),
    "lora": Case(LoRA(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj",), rslora=True)),
    "pack": Case(Pack(tokens=48)),
    "fuse": Case(Fuse(loss_rows=5)),
    "checkpoint": Case(Checkpoint(layers=2)),
}

every_cut = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def test_every_cut_is_under_contract() -> None:
    assert [kind.name for kind in CUTS] == list(CASES)


@every_cut
def test_is_frozen_and_round_trips_through_json(case: Case) -> None:
    assert cut_from_dict(json.loads(json.dumps(case.cut.to_dict()))) == case.cut
    assert eval(repr(case.cut), {type(case.cut).__name__: type(case.cut)}) == case.cut  # noqa: S307
    with pytest.raises(FrozenInstanceError):
        case.cut.name = "other"  # type: ignore[misc]


@every_cut
def test_pricing_leaves_the_job_as_it_was(case: Case) -> None:
    """What it says of bytes and FLOPs is held against real runs in test_job.py and job/test_job_memory.py."""
    job = FineTune().price(make_plain_job())
    before = replace(job)
    case.cut.price(job)
    assert job == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": "magic"}, "found 'magic', expected one of fine_tune"),
        ({"cut": "lora", "rnak": 4}, "unknown setting 'rnak'"),
    ],
)
def test_unknown_cuts_and_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        cut_from_dict(settings)


@every_cut
def test_says_what_it_saves_costs_and_rests_on(case: Case) -> None:
    doc = type(case.cut).__doc__ or ""
    assert all(f"{fact}:" in doc for fact in ("Saves", "Costs", "Evidence", "Paper"))
    assert isinstance(type(case.cut).exact, bool)


def test_pricing_needs_no_torch() -> None:
    program = "import sys, tenfold.cuts, tenfold.job, tenfold.planner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def make_case_rig(case: Case, tmp_path: Any) -> Rig:
    if isinstance(case.cut, FineTune):
        return build_rig(Source(str(tiny_folder(tmp_path / "base"))), case.task)
    if isinstance(case.cut, WarmStart):
        return load_pretrained(build_rig(Source(str(growing_folder(tmp_path / "base"))), case.task))
    return make_rig("llama", case.task)


@every_cut
def test_applies_and_says_so(case: Case, tmp_path: Any) -> None:
    rig = case.cut.apply(make_case_rig(case, tmp_path))
    assert [fact for fact in rig.facts if fact.startswith(f"{case.cut.name}:")]
    rows = make_rows(case.task)
    loss, gradient = step_gradient(rig, rows)
    assert loss > 0
    assert gradient.norm() > 0


@every_cut
def test_leaves_no_trace_on_a_fresh_rig(case: Case, tmp_path: Any) -> None:
    rows = make_rows(case.task)
    before = step_gradient(make_rig("llama", case.task), rows)
    case.cut.apply(make_case_rig(case, tmp_path))
    after = step_gradient(make_rig("llama", case.task), rows)
    assert after[0] == before[0]
    assert torch.equal(after[1], before[1])


class Bare(torch.nn.Module):
    """What a cut finds nothing on: no attention, no linear layer, no block, no head."""

    base_model_prefix = "bare"

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"pad_token_id": 0, "_attn_implementation": None})()

    @property
    def base_model(self) -> Bare:
        return self

    def get_output_embeddings(self) -> None:
        return None

    def get_input_embeddings(self) -> None:
        return None


@pytest.mark.parametrize(
    "cut",
    [WarmStart(tokens=("my",)), Quantize(), LoRA(), Pack(), Fuse(), Checkpoint(layers=1)],
    ids=lambda cut: cut.name,
)
def test_refuses_a_model_without_its_target(cut: Cut) -> None:
    rig = make_rig("llama", "sft")
    bare = Rig(Bare(), "sft", rig.source, rig.device, rig.layout, rig.loss)  # type: ignore[arg-type]
    with pytest.raises(NoEffect, match=cut.name):
        cut.apply(bare)


def test_fine_tune_refuses_a_folder_without_weights(tmp_path: Any) -> None:
    folder = tiny_folder(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot load"):
        FineTune().apply(build_rig(Source(str(folder)), "sft"))


def test_a_fold_applies_in_order() -> None:
    rig = on_rig((LoRA(rank=2), Pack(), Fuse(), Checkpoint(layers=1)), make_rig("llama", "sft"))
    assert [fact.split(":")[0] for fact in rig.facts] == ["lora", "pack", "fuse", "checkpoint"]


def test_what_settles_where_weights_go_comes_before_them(tmp_path: Any) -> None:
    rig = build_rig(Source(str(tiny_folder(tmp_path / "base"))), "sft")
    rig = on_rig((FineTune(), Quantize(), LoRA(rank=2)), rig)
    assert [fact.split(":")[0] for fact in rig.facts] == ["quantize", "fine_tune", "lora"]


def test_what_takes_a_while_is_begun_before_anything_is_applied() -> None:
    events: list[str] = []

    @dataclass(frozen=True)
    class Slow(Cut):
        label: str
        before_weights: bool = False  # type: ignore[misc]  # a field here, to have one of each kind

        def begin(self, device: torch.device) -> None:
            events.append(f"begin {self.label}")

        def apply(self, rig: Rig) -> Rig:
            events.append(f"apply {self.label}")
            return rig

    on_rig((Slow("first"), Slow("second", True)), make_rig("llama", "sft"))
    assert events == ["begin second", "begin first", "apply second", "apply first"]


def test_settings_are_plain_values() -> None:
    for case in CASES.values():
        for field in fields(case.cut):  # type: ignore[arg-type]
            assert isinstance(getattr(case.cut, field.name), int | float | str | bool | tuple)
