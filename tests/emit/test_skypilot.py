"""The task file: what SkyPilot's own schema says of it, and what a person reads in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from paper import machines, plan_on_paper
from tenfold.emit import skypilot_task, write_skypilot
from tenfold.emit.skypilot import ACCELERATORS, CLOUDS
from tenfold.errors import InputError
from tenfold.machine import catalogue, gpus, local_machine
from tenfold.planner import Plan


def task_on(name: str, provider: str, tier: str = "on_demand") -> dict[str, Any]:
    (machine,) = [one for one in machines(name, tier=tier) if one.provider == provider]
    return skypilot_task(plan_on_paper([machine]), "./plan.json")[0]


def test_the_machine_goes_away_by_itself() -> None:
    task = task_on("H200 SXM", "RunPod")
    assert task["resources"]["autostop"] == {"idle_minutes": 5, "down": True}
    assert task["resources"]["infra"] == "runpod"
    assert task["resources"]["accelerators"] == "H200-SXM:1"
    assert not task["resources"]["use_spot"]
    assert task_on("B200", "Verda", "spot")["resources"]["use_spot"]


def test_every_gpu_of_the_catalogue_has_its_name_there() -> None:
    assert set(ACCELERATORS) == set(gpus())
    assert set(CLOUDS) >= {"AWS", "Azure", "Lambda", "RunPod", "Vast", "Nebius"}
    assert "infra" not in task_on("T4", "Akash")["resources"]


def test_local_files_travel_and_are_called_there_as_the_moved_plan_says(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "w1"}\n')
    plan = plan_on_paper(machines("H200 SXM"), data={"train": str(rows)}, model="owner/name")
    task, moved = skypilot_task(plan, "./plan.sky.json")
    there = f"~/tenfold-run/{moved.recipe.data.train[0]}"
    assert task["file_mounts"] == {there: str(rows), "~/tenfold-run/plan.json": "./plan.sky.json"}
    assert moved.recipe.model.name == "owner/name", "an id is downloaded there"
    assert moved.recipe.output.folder == "run"
    assert plan.recipe.data.train == (str(rows),), "the plan here stays as it is"
    assert task["run"].splitlines() == ["cd ~/tenfold-run", "tenfold train plan.json"]


def test_both_files_are_written_and_read_again(tmp_path: Path) -> None:
    plan = plan_on_paper(machines("H200 SXM"))
    moved_path, task_path = write_skypilot(plan, tmp_path / "plan.json")
    assert (moved_path.name, task_path.name) == ("plan.sky.json", "plan.sky.yaml")
    assert Plan.read(moved_path).cuts == plan.cuts
    text = task_path.read_text()
    assert yaml.safe_load(text) == skypilot_task(plan, "./plan.sky.json")[0]
    assert re.search(r"sky launch -c tenfold-\S+ plan\.sky\.yaml", text)
    assert "rsync" in text


def test_a_plan_for_the_computer_at_hand_rents_nothing() -> None:
    with pytest.raises(InputError, match=re.escape("--set machine.name=auto")):
        skypilot_task(plan_on_paper([replace(local_machine(1.0), memory_bytes=2**36)]), "./plan.json")


@pytest.mark.parametrize("tier", ["on_demand", "spot", "community"])
def test_skypilot_accepts_it(tier: str) -> None:
    """Its own schemas of a task and of resources, as installed."""
    schemas = pytest.importorskip("sky.utils.schemas", reason="SkyPilot is not installed; it wants click below 8.2")
    jsonschema = pytest.importorskip("jsonschema")
    offered = [one for one in catalogue() if one.tier == tier]
    assert offered
    for machine in {(one.name, one.provider): one for one in offered}.values():
        task, _ = skypilot_task(plan_on_paper([machine]), "./plan.json")
        plain = json.loads(json.dumps(task))
        jsonschema.validate(plain, schemas.get_task_schema())
        jsonschema.validate(plain["resources"], schemas.get_resources_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plain["resources"], "autostop": {"idle": 5}}, schemas.get_resources_schema())
