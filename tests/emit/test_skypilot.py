"""The task file: what SkyPilot's own schema says of it, and what a person reads in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
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


SKYPILOT = "skypilot==0.14.1"

VALIDATE = """
import json, sys
import jsonschema
from sky.utils import schemas

def fault(task):
    try:
        jsonschema.validate(task, schemas.get_task_schema())
        jsonschema.validate(task["resources"], schemas.get_resources_schema())
    except jsonschema.ValidationError as error:
        return error.message

print(json.dumps([fault(task) for task in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def skypilot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python that has SkyPilot, which wants an older click than this one has. Half a minute, from the index."""
    folder = tmp_path_factory.mktemp("skypilot")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", SKYPILOT]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package index took more than 300 s for {SKYPILOT}")
    if done.returncode != 0:
        pytest.skip(f"the package index gives no {SKYPILOT}: {done.stderr.strip().splitlines()[-1]}")
    yield python
    shutil.rmtree(folder)  # 460 MB


def test_skypilot_accepts_it(skypilot: Path) -> None:
    """Every offer of the catalogue, by its own schemas of a task and of resources. The control: a misspelt key."""
    offered = {(one.name, one.provider, one.tier): one for one in catalogue() if one.vendor_kind == "cuda"}
    assert {tier for _, _, tier in offered} >= {"on_demand", "spot", "community"}
    tasks = [skypilot_task(plan_on_paper([machine]), "./plan.json")[0] for machine in offered.values()]
    misspelt = {**tasks[0], "resources": {**tasks[0]["resources"], "autostop": {"idle": 5}}}
    given = json.dumps([*tasks, misspelt])
    done = subprocess.run([skypilot, "-c", VALIDATE], input=given, capture_output=True, text=True, check=True)
    *faults, control = json.loads(done.stdout.splitlines()[-1])
    assert faults == [None] * len(tasks)
    assert control is not None and "idle" in control
