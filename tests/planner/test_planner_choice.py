"""Choosing: the front of dollars against hours, ties, floors, trades, and how fast ten thousand ways are priced."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from measured import LORA_MEASURED, measured
from paper import CONFIG, ROWS, machines, plan_on_paper
from tenfold.errors import NoPlanFits
from tenfold.machine import gpu_named
from tenfold.planner import Plan, make_plan
from tenfold.planner.quality import QualityEvidence
from tenfold.recipe import recipe_from_dict
from tenfold.shape import shape_from_config

OPEN = {"quantize": {"storage": "auto", "compute": "auto", "keep": None}, "lora": True}
"""Consent to every number format."""

EVERYWHERE = machines()


def plan_everywhere(**sections: object) -> Plan:
    return plan_on_paper(EVERYWHERE, **{"train": {"batch_size": 64}, **sections})  # type: ignore[arg-type]


def test_ten_thousand_ways_on_twenty_gpus() -> None:
    """In about a second: bench/startup.py."""
    found = plan_everywhere(cuts=OPEN, train={"batch_size": 64, "optimizer": "auto"})
    assert found.considered >= 10_000
    assert len({machine.name for machine in EVERYWHERE}) >= 20


def test_no_way_beats_one_of_the_front_in_both() -> None:
    found = plan_everywhere()
    ways = [(way.usd, way.total_seconds) for way in found.front]
    assert ways == sorted(ways)
    assert [seconds for _, seconds in ways] == sorted((seconds for _, seconds in ways), reverse=True)
    others = [(way.usd, way.total_seconds) for way in found.runners_up]
    for usd, seconds in others:
        assert usd is not None
        assert any(a is not None and a <= usd and b <= 1.01 * seconds for a, b in ways)


def test_the_chosen_way_is_at_the_cheap_end_of_the_front() -> None:
    found = plan_everywhere()
    assert found.front[0].usd is not None
    assert found.prediction.usd is not None
    assert found.prediction.usd <= 1.01 * found.front[0].usd


def test_a_dollar_more_buys_hours_and_says_where() -> None:
    found = plan_everywhere()
    assert re.fullmatch(r"\$[\d.,]+ more buy [\d.]+ (minutes|hours) less(, .* for each dollar)?, on .+", found.buys[0])
    fastest = min(way.total_seconds for way in found.front)
    hurried = plan_everywhere(budget={"hours": 1.02 * fastest / 3600})
    assert hurried.prediction.total_seconds <= 1.02 * fastest
    lonely = plan_on_paper(machines("T4")[:1], cuts={"pack": False, "fuse": False, "lora": True})
    assert "no allowed way is faster by more than 5 %" in lonely.buys[0]


def test_a_deadline_that_bought_speed_says_what_waiting_would_save() -> None:
    fastest = min(way.total_seconds for way in plan_everywhere().front)
    hurried = plan_everywhere(budget={"hours": 1.02 * fastest / 3600})
    assert any(re.search(r"more save \$[\d.]+, on ", text) for text in hurried.buys)


def test_every_machine_on_which_something_fits_is_shown_cheapest_first() -> None:
    found = plan_everywhere()
    assert sum(one.chosen for one in found.by_machine) == 1
    costs = [one.usd for one in found.by_machine if one.usd is not None]
    assert costs == sorted(costs)
    assert len(found.by_machine) >= 20
    for one in found.by_machine:
        assert sum(one.bytes_by_kind.values()) < one.memory_bytes


def with_evidence(evidence: QualityEvidence, **sections: object) -> Plan:
    recipe = recipe_from_dict({"model": "m", "task": "sft", "data": {"train": "rows.jsonl"}, **sections})
    return make_plan(recipe, shape_from_config("m", CONFIG), ROWS, machines("H200 SXM"), evidence)


def test_a_quality_floor_leaves_out_what_was_once_measured_to_harm() -> None:
    harm = measured(low=0.1, difference=0.15, high=0.2)
    mixed = QualityEvidence(cuts={"lora": (measured(), harm)})
    floor = {"quality": {"metric": "loss", "at_most": 2.0}}
    assert "lora" in [cut["cut"] for cut in with_evidence(mixed).cuts]
    found = with_evidence(mixed, **floor)
    assert "lora" not in [cut["cut"] for cut in found.cuts]
    (reason,) = [text for text in found.why if text.startswith("lora off")]
    assert f"a quality is asked for, and it is measured to cost some: {harm.text}" in reason
    assert "lora" in [cut["cut"] for cut in with_evidence(LORA_MEASURED, **floor).cuts]
    assert "lora" in [cut["cut"] for cut in with_evidence(mixed, cuts={"lora": True}, **floor).cuts], "consent"


def test_number_formats_are_open_only_where_the_recipe_opens_them() -> None:
    on = machines("H200 SXM")
    found = plan_on_paper(on, cuts=OPEN, train={"epochs": 50})
    (quantize,) = [cut for cut in found.cuts if cut["cut"] == "quantize"]
    assert quantize["compute"] == "fp8", "products of half the time"
    fixed = plan_on_paper(on, cuts={"quantize": "nf4", "lora": True})
    assert next(cut for cut in fixed.cuts if cut["cut"] == "quantize")["storage"] == "nf4"
    plain = plan_on_paper(machines("A100 80GB"), cuts=OPEN)
    assert all(cut.get("compute") != "fp8" for cut in plain.cuts), "it has no hardware for fp8 products"


def test_the_optimizer_is_open_only_where_the_recipe_opens_it() -> None:
    small = [replace(machine, memory_bytes=20 * 2**30) for machine in machines("L4")]
    full = {"cuts": {"lora": False}}
    eager = {"cuts": {"lora": False, "fuse": {"compile": False}}}  # where an update of 8 bits is not one operation
    assert plan_on_paper(machines("H200 SXM"), train={"optimizer": "auto", "epochs": 50}, **eager).optimizer == "adamw"
    found = plan_on_paper(small, train={"optimizer": "auto"}, **full)
    assert found.optimizer == "adamw_8bit", "nothing else fits"
    assert found.settled.train.optimizer == "adamw_8bit"
    assert found.recipe.train.optimizer == "auto"


def test_split_weights_are_for_who_names_them_and_for_all_weights() -> None:
    small = [replace(machine, memory_bytes=14 * 2**30) for machine in machines("L4")]
    with pytest.raises(NoPlanFits):
        plan_on_paper(small, train={"optimizer": "auto"}, cuts={"lora": False})
    found = plan_on_paper(small, train={"optimizer": "adamw_8bit_split"})
    assert (found.optimizer, [cut["cut"] for cut in found.cuts if cut["cut"] == "lora"]) == ("adamw_8bit_split", [])


def test_spot_machines_save_as_often_as_pays() -> None:
    spot = machines("H200 SXM", "B200", tier="spot")
    long = {"train": {"epochs": 300}}
    found = plan_on_paper(spot, **long)
    assert found.save_every_steps is not None
    assert 1 <= found.save_every_steps < found.prediction.steps
    assert found.settled.train.save_every_steps == found.save_every_steps
    assert found.prediction.seconds_by_part["interruptions"] > 0
    assert any("taken to go away every 12 hours" in note for note in found.notes)
    forced = plan_on_paper(spot, train={"epochs": 300, "save_every_steps": 7})
    assert forced.save_every_steps == 7
    assert plan_on_paper(machines("H200 SXM"), **long).save_every_steps is None


def test_doubts_are_said() -> None:
    found = plan_on_paper(machines("A40"))
    assert any("the price of A40" in note and "--price" in note for note in found.notes)
    assert any("the speed of A40 is a guess" in note for note in found.notes)
    own = [replace(gpu_named("H200 SXM"), rent_usd_per_hour=2.0)]
    assert plan_on_paper(own).notes == ()
