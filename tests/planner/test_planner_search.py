"""The planner against brute force, and what it says when nothing fits."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from measured import LORA_MEASURED
from shapes import LLAMA_8B
from tenfold.cuts import CUTS, Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, cut_from_dict, on_paper
from tenfold.errors import InputError, NoPlanFits
from tenfold.job import Job, bill, peak_bytes, seconds_by_part
from tenfold.job.seconds import one_save_seconds
from tenfold.machine import MEMORY_MARGIN as MARGIN
from tenfold.machine import Machine, catalogue, local_machine
from tenfold.planner import Plan, make_plan
from tenfold.planner.options import PACK_TOKENS
from tenfold.planner.way import TIE
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.shape import Shape, shape_from_config
from tenfold.workload import Workload

MIXED = Workload(tuple((length, 10 * (40 - length // 50)) for length in range(50, 2000, 50)), loss_tokens=4_000_000)
EQUAL = Workload(((512, 5000),), loss_tokens=5000 * 511)


def make_shape(**changes: Any) -> Shape:
    return shape_from_config("llama-8b", {**LLAMA_8B, **changes})


def make_recipe(task: str = "sft", **sections: Any) -> Recipe:
    return recipe_from_dict({"model": "llama-8b", "task": task, "data": {"train": "rows.jsonl"}, **sections})


def gpu(name: str, **changes: Any) -> Machine:
    return replace(next(machine for machine in catalogue() if machine.name == name), **changes)


def plan(
    recipe: Recipe | None = None, workload: Workload = MIXED, machines: tuple[Machine, ...] = (), **shape: Any
) -> Plan:
    """All tasks have evidence for lora here, so that the search is seen at its work."""
    shape_ = make_shape(**shape)
    return make_plan(recipe or make_recipe(), shape_, workload, machines or (gpu("H200 SXM"),), LORA_MEASURED)


def names(found: Plan) -> list[str]:
    return [cut["cut"] for cut in found.cuts]


def test_the_cheapest_of_all_ways_is_taken() -> None:
    """Every combination priced here by its own loops, without the planner's search."""
    machines = (gpu("L40S"), gpu("A100 80GB"), gpu("H200 SXM"))
    recipe = make_recipe(train={"batch_size": 16})
    found = plan(recipe, machines=machines)
    costs: list[float] = []
    for machine in machines:
        dense = Job(make_shape(), MIXED, machine, "sft", 16, 16, None, 3.0)
        packs = (None, *(Pack(tokens) for tokens in PACK_TOKENS))
        counts = [(layers, offload) for layers in (8, 16, 24, 32) for offload in (0, 10, 20, 31)]
        checkpoints = (None, *(Checkpoint(*count) for count in counts))
        for rows, *options in product(
            (1, 2, 4, 8, 16), (None, LoRA()), packs, (None, Fuse(), Fuse(compile=True)), checkpoints
        ):
            cuts = [FineTune(), *(option for option in options if option is not None)]
            job = on_paper(cuts, replace(dense, micro_rows=rows))
            if peak_bytes(job) <= machine.memory_bytes * (1 - MARGIN):
                costs.append(bill(seconds_by_part(job), machine, one_save_seconds(job)).usd or 0.0)
    assert found.prediction.usd is not None
    assert min(costs) <= found.prediction.usd <= TIE * min(costs)


def test_the_prediction_is_that_of_the_cuts_in_the_plan() -> None:
    found = plan(make_recipe(train={"batch_size": 16}))
    dense = Job(make_shape(), MIXED, gpu("H200 SXM"), "sft", 16, found.micro_batch_size, None, 3.0)
    job = on_paper([cut_from_dict(cut) for cut in found.cuts], dense)
    assert found.prediction.peak_bytes == peak_bytes(job)
    assert found.prediction.seconds_by_part == seconds_by_part(job)
    assert found.prediction.steps == job.steps


FORCED: dict[str, tuple[Any, Cut]] = {
    "lora": ({"rank": 4, "alpha": 2.0, "targets": ["q_proj", "v_proj"]}, LoRA(4, 2.0, 0.0, ("q_proj", "v_proj"))),
    "checkpoint": ({"layers": 5}, Checkpoint(5)),
    "pack": ({"tokens": 3000}, Pack(3000)),
    "fuse": ({"loss_rows": 100, "compile": False}, Fuse(100)),
    "fuse, compiled": ({"loss_rows": 100, "compile": True}, Fuse(100, compile=True)),
}


@pytest.mark.parametrize("name", FORCED)
def test_forced_settings_are_in_the_plan(name: str) -> None:
    settings, cut = FORCED[name]
    found = plan(make_recipe(cuts={name.split(",")[0]: settings}))
    assert cut in [cut_from_dict(one) for one in found.cuts]


@pytest.mark.parametrize("name", ["fine_tune", "lora", "pack", "fuse"])
def test_a_forbidden_cut_is_not_taken(name: str) -> None:
    assert name in names(plan())
    assert name not in names(plan(make_recipe(cuts={name: False}), num_hidden_layers=4))


def test_checkpoint_is_taken_only_as_far_as_it_must() -> None:
    """A few blocks fewer would not fit."""
    assert "checkpoint" not in names(plan())
    machines = (gpu("RTX 3090"),)
    pack = {"pack": {"tokens": 2048}, "fuse": True}
    cut = next(cut for cut in plan(make_recipe(cuts=pack), machines=machines).cuts if cut["cut"] == "checkpoint")
    wish = {key: value for key, value in cut.items() if key in ("layers", "offload") and value}
    assert wish
    assert plan(make_recipe(cuts={**pack, "checkpoint": wish}), machines=machines)
    less = {key: max(1, value - 2) for key, value in wish.items()}
    with pytest.raises(NoPlanFits):
        plan(make_recipe(cuts={**pack, "checkpoint": less}), machines=machines)


def test_what_is_planned_fits_with_its_margin() -> None:
    for name in ("RTX 3090", "L40S", "A100 80GB", "B200"):
        found = plan(machines=(gpu(name),))
        assert found.prediction.peak_bytes <= gpu(name).memory_bytes * (1 - MARGIN)


def test_rows_of_one_length_are_packed_only_where_layers_are_compiled() -> None:
    """There is no padding to save, but on a GPU packed micro-batches have the steady shapes that can be recorded."""
    assert "pack" not in names(plan(make_recipe(cuts={"fuse": {"compile": False}}), workload=EQUAL))
    assert "pack" in names(plan(make_recipe(cuts={"pack": True, "fuse": {"compile": True}}), workload=EQUAL))
    dense = Job(make_shape(), EQUAL, local_machine(), "sft", 16, 16, None, 3.0)
    assert Pack(4096).price(dense) == dense


@pytest.mark.parametrize(
    ("cuts", "shape", "message"),
    [
        ({"fuse": True}, {"final_logit_softcapping": 30.0}, "cuts.fuse: changes nothing"),
        ({"pack": True}, {"attn_logit_softcapping": 50.0}, "cuts.pack: changes nothing"),
        (
            {"lora": {"targets": ["nothing"]}},
            {},
            "no linear layer of this model is called nothing;"
            " it has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or write all-linear",
        ),
        ({"lora": {"targets": ["q_proj", "w_proj"]}}, {}, "is called w_proj; did you mean "),
        ({"lora": {"targets": ["q_porj"]}}, {}, "is called q_porj; did you mean q_proj"),
        ({"lora": {"targets": ["query"]}}, {}, "is called query; did you mean q_proj? It has"),
        ({"lora": {"targets": ["gate_up_proj"]}}, {}, "did you mean gate_proj or up_proj? It has"),
        ({"lora": {"targets": ["q_proj"]}}, {"model_type": "phi3"}, "did you mean qkv_proj? It has qkv_proj, o_proj, "),
        ({"lora": {"targets": ["attn.q_proj"]}}, {}, "is called attn.q_proj; did you mean q_proj?"),
        ({"lora": {"targets": ["32.self_attn.q_proj"]}}, {}, "is called 32.self_attn.q_proj; did you mean q_proj?"),
        ({"lora": {"targets": ["nothing"]}}, {"model_type": "novel"}, "is called nothing; write all-linear"),
        ({"checkpoint": {"layers": 33}}, {}, "found 33, but the model has 32 blocks"),
        ({"checkpoint": {"mlp_tiles": 4}}, {"resid_pdrop": 0.1}, "that drop out in them do not run in tiles"),
    ],
)
def test_a_forced_cut_that_cannot_work_is_refused(cuts: dict[str, Any], shape: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        plan(make_recipe(cuts=cuts), **shape)


def test_classification_has_no_logits_to_fuse() -> None:
    workload = replace(MIXED, labels=4, loss_tokens=MIXED.rows)
    assert "fuse" not in names(plan(make_recipe("classify"), workload))


def test_too_little_memory_names_what_is_needed() -> None:
    small = gpu("RTX 3090", memory_bytes=8 * 2**30)
    with pytest.raises(NoPlanFits, match="smallest way needs") as raised:
        plan(machines=(small,))
    needed = float(re.findall(r"needs ([\d.]+) GiB", str(raised.value))[0])
    assert plan(machines=(replace(small, memory_bytes=int((needed + 0.1) * 2**30)),))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("key", "little"), [("usd", 0.01), ("hours", 0.001)])
def test_the_budget_that_is_named_would_do(key: str, little: float) -> None:
    with pytest.raises(NoPlanFits, match=f"budget.{key}: ") as raised:
        plan(make_recipe(budget={key: little}))
    named = float(re.findall(rf"budget.{key}: ([\d.]+) would do", str(raised.value))[0])
    assert plan(make_recipe(budget={key: named})).prediction
    with pytest.raises(NoPlanFits):
        plan(make_recipe(budget={key: 0.97 * named}))


def test_the_least_price_and_budget_that_a_recipe_may_name_are_planned() -> None:
    tiny = {"usd": 1e-6, "hours": 1e-6}
    with pytest.raises(NoPlanFits, match=re.escape("budget.hours: ")):
        plan(make_recipe(budget=tiny), machines=(gpu("H200 SXM", rent_usd_per_hour=1e-6),))


def test_a_deadline_buys_a_faster_machine() -> None:
    machines = (gpu("RTX 3090"), gpu("B200"))
    cheap = plan(machines=machines)
    hours = 0.5 * cheap.prediction.total_seconds / 3600
    fast = plan(make_recipe(budget={"hours": hours}), machines=machines)
    assert (cheap.machine.name, fast.machine.name) == ("RTX 3090", "B200")
    assert fast.prediction.usd is not None
    assert cheap.prediction.usd is not None
    assert fast.prediction.usd > cheap.prediction.usd


def test_a_budget_without_a_price_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("set machine.usd_per_hour")):
        plan(make_recipe(budget={"usd": 5}), machines=(gpu("H200 SXM", rent_usd_per_hour=None),))


def test_without_a_price_the_fastest_is_taken_and_dollars_are_unknown() -> None:
    found = plan(machines=(gpu("H200 SXM", rent_usd_per_hour=None),))
    assert found.prediction.usd is None
    assert names(found) == names(plan())


def test_the_price_does_not_change_the_cuts() -> None:
    assert plan(machines=(gpu("H200 SXM", rent_usd_per_hour=100.0),)).cuts == plan().cuts


def test_the_naive_way_costs_more_than_the_plan_and_scratch_more_than_that() -> None:
    found = plan()
    assert found.prediction.total_seconds < found.naive.total_seconds < found.from_scratch.total_seconds
    assert found.prediction.peak_bytes < found.naive.peak_bytes
    assert found.from_scratch.tokens == pytest.approx(20 * make_shape().parameters, rel=0.01)


@pytest.mark.parametrize("train", [{"epochs": 1}, {"epochs": 3}, {"max_steps": 100}])
def test_the_naive_way_trains_as_many_rows(train: dict[str, Any]) -> None:
    """Its 8 rows a step are a quarter of the recipe's 32."""
    found = plan(make_recipe(train=train))
    assert found.naive.tokens == pytest.approx(found.prediction.tokens, rel=0.01)
    assert found.naive.steps == pytest.approx(4 * found.prediction.steps, rel=0.01)


def test_runners_up_differ_and_cost_at_least_as_much() -> None:
    found = plan(machines=tuple(machine for machine in catalogue() if machine.tier == "on_demand"))
    keys = [(way.machine, way.cuts) for way in found.runners_up]
    assert len(keys) == len(set(keys)) == 5
    assert (found.machine.label, tuple(names(found))) not in keys
    assert found.prediction.usd is not None
    assert all(way.usd is not None and TIE * way.usd >= found.prediction.usd for way in found.runners_up)


@pytest.mark.parametrize("wish", ["nf4", True, {"storage": "nf4"}])
def test_quantize_is_made_only_where_a_recipe_says_so(wish: Any) -> None:
    """Then with lora, although lora itself is left open; the job is smaller by what is stored in fewer bits."""
    found, open_ = plan(make_recipe(cuts={"quantize": wish})), plan(make_recipe(cuts={"lora": True}))
    assert names(found)[:3] == ["fine_tune", "quantize", "lora"]
    assert "quantize" not in names(open_)
    assert all("quantize" not in way.cuts for way in open_.runners_up)
    assert next(s for s in open_.why if s.startswith("quantize off: only a recipe chooses it; with it "))
    saved = open_.prediction.bytes_by_kind["weights"] - found.prediction.bytes_by_kind["weights"]
    linear_weights = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
    assert saved == pytest.approx(linear_weights * (2 - 4.126953125 / 8))


def test_a_small_gpu_takes_a_quantized_model_that_it_could_not_take_whole() -> None:
    small = gpu("RTX 4090")
    with pytest.raises(NoPlanFits):
        plan(workload=EQUAL, machines=(small,), num_hidden_layers=56)
    found = plan(make_recipe(cuts={"quantize": "nf4"}), EQUAL, (small,), num_hidden_layers=56)
    assert found.prediction.peak_bytes < small.memory_bytes


def test_every_cut_has_its_reason() -> None:
    found = plan()
    assert {sentence.split()[0] for sentence in found.why} == {cut.name for cut in CUTS}
    assert any(re.search(r"^checkpoint off: fits with [\d.]+ GB to spare; with it \+\$", text) for text in found.why)


def test_a_reason_compares_with_the_best_that_could_be_done_otherwise() -> None:
    """Not with the same micro-batch padded, which would make any cut look good."""
    found, otherwise = plan(), plan(make_recipe(cuts={"pack": False}))
    assert found.prediction.usd is not None
    assert otherwise.prediction.usd is not None
    (reason,) = (text for text in found.why if text.startswith("pack on"))
    claimed = float(re.findall(r"\+\$([\d.]+)", reason)[0])
    assert claimed == pytest.approx(
        otherwise.prediction.usd - found.prediction.usd, abs=0.011 * otherwise.prediction.usd
    )


@pytest.mark.parametrize(("price", "words"), [(2.0, "costs the same"), (None, "takes the same time")])
def test_a_cut_that_costs_the_same_is_left_out_and_said_to(price: float | None, words: str) -> None:
    """On a run of seconds the imports decide: adapters would save memory, and neither time nor dollars."""
    machine = gpu("H200 SXM", rent_usd_per_hour=price)
    sizes = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "vocab_size": 4096}
    tiny, few = {**sizes, "num_attention_heads": 8}, Workload(((16, 64),), loss_tokens=64 * 15)
    found = plan(make_recipe("text"), few, (machine,), **tiny)
    assert names(found) == ["fine_tune"]
    (reason,) = (text for text in found.why if text.startswith("lora"))
    assert re.match(rf"lora off: {words} within 1 %; with it [+-].*, -[\d.]+ GB$", reason), reason
    forbidden = plan(make_recipe("text", cuts={"lora": False}), few, (machine,), **tiny)
    assert not [text for text in forbidden.why if text.startswith("lora") and "the same" in text]


def test_all_machines_and_cuts_are_priced() -> None:
    """How long that takes: bench/startup.py."""
    machines = tuple(machine for machine in catalogue() if machine.tier == "on_demand")
    found = plan(make_recipe(train={"batch_size": 64}), machines=machines)
    assert found.considered > 2000


def test_the_same_wishes_give_the_same_plan() -> None:
    first, second = (plan().model_dump(exclude={"created_at"}) for _ in range(2))
    assert first == second


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = plan(machines=(local_machine(0.25),), num_hidden_layers=2, hidden_size=256, intermediate_size=512)
    found.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == found
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not a plan"), ("{}", "not a plan of this version"), ("[1]", "not a plan"), (None, "cannot be read")],
)
def test_anything_else_is_not_a_plan(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        Plan.read(path)
    assert "\n" not in str(raised.value)
