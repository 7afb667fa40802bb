"""Approximate cuts need evidence or consent, and the evidence follows from committed measurements."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from measured import LORA_MEASURED, measured
from shapes import LLAMA_8B
from tenfold.cuts import CUTS, FineTune
from tenfold.errors import NoPlanFits
from tenfold.machine import find_machines
from tenfold.planner import Plan, make_plan
from tenfold.planner.quality import QualityEvidence, QualityMeasured, owes_quality, quality_evidence
from tenfold.recipe import MachineWish, Recipe, recipe_from_dict
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
NOTHING = QualityEvidence(cuts={})
SMALL = {"num_hidden_layers": 8, "hidden_size": 2048, "intermediate_size": 8192}
SHIPPED = [(name, row) for name, rows in quality_evidence().cuts.items() for row in rows]


def make_recipe(task: str = "sft", **sections: Any) -> Recipe:
    return recipe_from_dict({"model": "m", "task": task, "data": {"train": "rows.jsonl"}, **sections})


def plan(recipe: Recipe, evidence: QualityEvidence | None, machine: str = "H200 SXM", **shape: Any) -> Plan:
    workload = Workload(tuple((length, 500) for length in range(100, 900, 100)), loss_tokens=1_000_000)
    config = {**LLAMA_8B, **(shape or SMALL)}
    machines = find_machines(MachineWish(name=machine, usd_per_hour=2.0))
    return make_plan(recipe, shape_from_config("m", config), workload, machines, evidence)


def names(found: Plan) -> list[str]:
    return [cut["cut"] for cut in found.cuts]


def reason(found: Plan, cut: str = "lora") -> str:
    (sentence,) = (text for text in found.why if text.startswith(f"{cut} "))
    return sentence


def test_without_evidence_an_approximate_cut_is_off_with_the_reason_and_the_way_to_force_it() -> None:
    found = plan(make_recipe(), NOTHING)
    assert "lora" not in names(found)
    assert {"fine_tune", "pack"} <= set(names(found)), "neither the base nor an exact cut needs evidence"
    pattern = (
        r"lora off: its quality is not measured for task sft; cuts\.lora: true takes it; with it -\$[\d.]+, -[\d.]+ GB"
    )
    assert re.fullmatch(pattern, reason(found))
    assert found.recipe.cuts.lora == "auto", "the plan keeps the recipe as it was written"


@pytest.mark.parametrize("wish", [True, {"rank": 4}])
def test_to_name_a_cut_is_consent(wish: Any) -> None:
    found = plan(make_recipe(cuts={"lora": wish}), NOTHING)
    assert "lora" in names(found)
    assert reason(found).startswith("lora on: ")
    assert reason(found).endswith("; quality not measured for task sft")


def test_with_evidence_it_is_chosen_and_the_interval_shown() -> None:
    found = plan(make_recipe(), LORA_MEASURED)
    assert "lora" in names(found)
    assert reason(found).endswith("; loss -0.030 to +0.020 on rows (tiny, 3 seeds)")
    assert "on rows" not in reason(found, "fine_tune") + reason(found, "pack")


def test_evidence_is_for_its_own_task() -> None:
    assert "lora" not in names(plan(make_recipe("text"), QualityEvidence(cuts={"lora": (measured("sft"),)})))


@pytest.mark.parametrize(
    ("metric", "low", "high", "harm"),
    [
        ("accuracy", -0.2, -0.1, True),
        ("accuracy", -0.2, 0.1, False),
        ("accuracy", 0.1, 0.2, False),
        ("macro_f1", -0.2, -0.1, True),
        ("loss", 0.1, 0.2, True),
        ("loss", -0.2, 0.1, False),
        ("perplexity", -0.2, -0.1, False),
    ],
)
def test_an_interval_that_is_worse_throughout_counts_against(metric: str, low: float, high: float, harm: bool) -> None:
    row = measured(metric=metric, low=low, high=high, difference=(low + high) / 2)
    mixed = plan(make_recipe(), QualityEvidence(cuts={"lora": (measured(), row)}))
    assert "lora" in names(mixed), "elsewhere it did no harm"
    assert reason(mixed).endswith(f"{measured().text}, {row.text}"), "and the plan shows both"
    found = plan(make_recipe(), QualityEvidence(cuts={"lora": (row,)}))
    assert ("lora" not in names(found)) == harm
    if harm:
        assert reason(found).startswith(f"lora off: it is measured to cost quality: {row.text}; cuts.lora: true takes")


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"storage": "nf4"}, "; loss +0.006 to +0.011 on gsm8k (classics-28m, 3 seeds)"),
        ({"storage": "fp8"}, "; loss -0.001 to +0.003 on gsm8k (classics-28m, 3 seeds)"),
        ({"storage": "int8"}, "; quality not measured for task sft"),
        ({"storage": "fp8", "compute": "fp8"}, "; loss +0.003 to +0.009 on gsm8k (classics-28m, 3 seeds)"),
        ({"storage": "int8", "compute": "fp8"}, "; quality not measured for task sft"),
    ],
)
def test_a_measurement_speaks_of_the_settings_that_it_was_made_with(wish: dict[str, str], told: str) -> None:
    (sentence,) = [text for text in plan(make_recipe(cuts={"quantize": wish}), None).why if text.startswith("quantize")]
    assert sentence[sentence.index(";") :] == told


def test_a_forbidden_cut_is_not_said_to_want_evidence() -> None:
    assert "measured" not in reason(plan(make_recipe(cuts={"lora": False}), NOTHING))


def test_where_only_consent_is_missing_the_error_says_so() -> None:
    with pytest.raises(NoPlanFits) as raised:
        plan(make_recipe(), NOTHING, "L40S", **LLAMA_8B)
    assert "cuts.lora: true would do (its quality is not measured for task sft)" in str(raised.value)
    with pytest.raises(NoPlanFits, match=r"budget\.hours") as raised:
        plan(make_recipe(budget={"hours": 1e-6}), NOTHING)
    assert "cuts.lora" not in str(raised.value), "it would not do either"


def test_only_approximate_cuts_owe_a_measurement_and_the_base_does_not() -> None:
    assert {kind.name for kind in CUTS if owes_quality(kind)} == {
        kind.name for kind in CUTS if not kind.exact and kind is not FineTune
    }
    assert set(quality_evidence().cuts) <= {kind.name for kind in CUTS if owes_quality(kind)}


def test_an_interval_holds_its_mean() -> None:
    with pytest.raises(ValidationError, match="is not between"):
        measured(low=0.0, difference=-0.1)


@pytest.mark.parametrize(("name", "row"), SHIPPED, ids=lambda value: getattr(value, "data", value))
def test_shipped_numbers_follow_from_their_source(name: str, row: QualityMeasured) -> None:
    """Seed by seed, with Student's t for their number; what others published says so and names the very version."""
    if row.source.startswith("https://"):
        assert re.search("/[0-9a-f]{40}/", row.source)
        assert "1,319" in row.note
        half = 1.96 * (0.500379 * 0.499621 / 1319 + 0.482183 * 0.517817 / 1319) ** 0.5
        mean = 0.482183 - 0.500379
        assert (row.difference, row.low, row.high) == pytest.approx((mean, mean - half, mean + half), abs=5e-4)
        return
    result = json.loads((ROOT / row.source).read_text())
    differences = seed_differences(name, row, result)
    half = {3: 4.303, 5: 2.776}[len(differences)] * statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.mean(differences)
    assert (row.seeds, row.date.isoformat()) == (len(differences), result["date"])
    assert (row.difference, row.low, row.high) == pytest.approx((mean, mean - half, mean + half), abs=5e-5)


def seed_differences(name: str, row: QualityMeasured, result: dict[str, Any]) -> list[float]:
    """The metric with the cut less that without it, for each seed of a benchmark's file."""
    rows = [one for one in result["rows"] if one["data"] == row.data]
    if result["benchmark"] == "classify":
        assert row.metric == "accuracy"
        assert all(name in one["cuts"] for one in rows)
        return [one["our_final_accuracy"] - one["naive_accuracy"] for one in rows]
    assert result["benchmark"] in ("quality", "quality_products") and row.metric == "loss"
    leg, beside = ("lora", "full")
    if name == "quantize":
        leg, beside = f"lora, {row.of['storage']}" + ", fp8 products" * (row.of["compute"] == "fp8"), "lora"
    losses = {(one["leg"], one["seed"]): one["eval_loss"] for one in rows}
    return [losses[leg, seed] - losses[beside, seed] for seed in sorted({one["seed"] for one in rows})]
