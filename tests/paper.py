"""A plan on paper that several tests look at: a model of a billion weights on rows of mixed length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from measured import LORA_MEASURED
from tenfold.machine import Machine, catalogue
from tenfold.planner import Plan, make_plan
from tenfold.recipe import recipe_from_dict
from tenfold.shape import shape_from_config
from tenfold.workload import Workload

CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
ROWS = Workload(tuple((length, 50) for length in range(100, 900, 100)), loss_tokens=100_000)


def machines(*names: str, tier: str = "on_demand", **changes: Any) -> tuple[Machine, ...]:
    """Those of the catalogue with these names, or all; of one tier, changed."""
    found = [one for one in catalogue() if one.tier == tier and (not names or one.name in names)]
    return tuple(replace(one, **changes) for one in found)


def plan_on_paper(
    allowed: Sequence[Machine] | None = None, name: str = "one-billion", task: str = "text", **sections: Any
) -> Plan:
    """The plan for `sections` of a recipe."""
    recipe = recipe_from_dict({"model": "m", "task": task, "data": {"train": "rows.jsonl"}, **sections})
    return make_plan(recipe, shape_from_config(name, CONFIG), ROWS, allowed or machines("H200 SXM"), LORA_MEASURED)
