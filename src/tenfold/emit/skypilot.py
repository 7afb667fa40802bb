"""A SkyPilot task that rents the chosen machine, trains, and gives it back.

Reference: docs.skypilot.co, YAML specification. tenfold writes the file and launches nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import tenfold
from tenfold.durable import write_file
from tenfold.errors import InputError
from tenfold.inert import printable
from tenfold.planner import Plan
from tenfold.recipe import Recipe, WarmStartWish

ACCELERATORS = {
    "T4": "T4", "V100 16GB": "V100", "V100 32GB": "V100-32GB", "RTX 3090": "RTX3090", "A10G": "A10G", "L4": "L4",
    "RTX 4090": "RTX4090", "RTX 5090": "RTX5090", "A40": "A40", "RTX A6000": "RTXA6000", "RTX 6000 Ada": "RTX6000-Ada",
    "L40": "L40", "L40S": "L40S", "RTX PRO 6000": "RTXPRO6000", "A100 40GB": "A100", "A100 80GB": "A100-80GB",
    "H100 PCIe": "H100", "H100 NVL": "H100-NVL", "H100 SXM": "H100-SXM", "GH200": "GH200", "H200 SXM": "H200-SXM",
    "B200": "B200", "B300": "B300",
}  # fmt: skip
"""What SkyPilot's catalogues call the GPUs; where clouds differ, RunPod's name."""

CLOUDS = {"AWS": "aws", "Azure": "azure", "GCP": "gcp", "Lambda": "lambda", "RunPod": "runpod", "Vast": "vast",
          "Nebius": "nebius", "Verda": "verda"}  # fmt: skip
"""Providers that SkyPilot launches on, by its names."""

PLAIN_NAMES = {"aws": {"H100-SXM": "H100", "H200-SXM": "H200"}, "azure": {"H100-SXM": "H100", "H200-SXM": "H200"},
               "lambda": {"H100-SXM": "H100"}, "nebius": {"H100-SXM": "H100", "H200-SXM": "H200"}}  # fmt: skip
"""Where a cloud has one variant alone and names it without."""

HOME = "~/tenfold-run"
IDLE_MINUTES = 5
DISK_SPARE_GB = 60
"""For the system, torch and what training writes, beside the model twice."""


def skypilot_task(plan: Plan, plan_file: str) -> tuple[dict[str, Any], Plan]:
    """The task as a mapping, and the plan with the paths that its files have on the rented machine.

    Raises InputError for a plan for the computer at hand: there is nothing to rent.
    """
    machine = plan.machine
    accelerator = ACCELERATORS.get(machine.name)
    if accelerator is None:
        raise InputError(
            f"--emit skypilot: the plan is for {machine.name}; allow machines to rent, e.g. --set machine.name=auto"
        )
    cloud = CLOUDS.get(machine.provider)
    accelerator = PLAIN_NAMES.get(cloud or "", {}).get(accelerator, accelerator)
    mounts, recipe = _uploaded(plan.recipe)
    mounts[f"{HOME}/plan.json"] = plan_file
    stored = 2 * plan.shape.parameters / 1e9
    resources: dict[str, Any] = {
        **({"infra": cloud} if cloud else {}),
        "accelerators": f"{accelerator}:1",
        "use_spot": machine.tier == "spot",
        "disk_size": max(100, round(2 * stored) + DISK_SPARE_GB),
        "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
    }
    task: dict[str, Any] = {
        "name": _task_name(plan),
        "resources": resources,
        "file_mounts": mounts,
        "setup": f"pip install 'tenfold[train]=={tenfold.__version__}'\n",
        "run": f"cd {HOME}\ntenfold train plan.json\n",
    }
    return task, plan.model_copy(update={"recipe": recipe})


def write_skypilot(plan: Plan, plan_path: Path) -> list[Path]:
    """Write the task beside `plan_path`, and the plan with the machine's paths that it uploads. Both names."""
    moved_path = plan_path.with_suffix(".sky.json")
    task_path = plan_path.with_suffix(".sky.yaml")
    task, moved = skypilot_task(plan, f"./{moved_path.name}")
    head = [
        f"# Written by tenfold {tenfold.__version__} from a plan of {plan.created_at:%Y-%m-%d}:"
        f" {printable(plan.machine.label)},",
        f"# foretold {_cost(plan)}. Launch from this folder:",
        f"#     sky launch -c {task['name']} {task_path.name}",
        f"# The machine goes away {IDLE_MINUTES} minutes after the run; fetch what it made before that:",
        f"#     rsync -a {task['name']}:{HOME.removeprefix('~/')}/run ./",
    ]
    if plan.machine.provider and "infra" not in task["resources"]:
        head.append(
            f"# SkyPilot does not launch on {printable(plan.machine.provider)}: it will look for this GPU elsewhere."
        )
    moved.write(moved_path)
    text = yaml.dump(task, Dumper=_Blocks, sort_keys=False, default_flow_style=False, width=1000)
    write_file(task_path, "\n".join(head) + "\n" + text)
    return [moved_path, task_path]


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _represent_text)


def _cost(plan: Plan) -> str:
    found = plan.prediction
    hours = f"{found.total_seconds / 3600:.2f} hours"
    return hours if found.usd is None else f"${found.usd:.2f} and {hours}"


def _task_name(plan: Plan) -> str:
    name = Path(plan.recipe.output.folder).name.lower()
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
    return f"tenfold-{plain or 'run'}"[:40].rstrip("-")


def _uploaded(recipe: Recipe) -> tuple[dict[str, str], Recipe]:
    """Local files and folders to mount, and the recipe that names them as they are called there."""
    mounts: dict[str, str] = {}

    def place(name: str) -> str:
        path = Path(name).expanduser()
        if not path.exists():
            return name  # a Hugging Face id
        there = f"{HOME}/inputs/{len(mounts)}-{path.name}"
        mounts[there] = str(path.absolute())
        return f"inputs/{there.rsplit('/', 1)[1]}"

    wish = recipe.cuts.warm_start
    if isinstance(wish, WarmStartWish) and (wish.old_text or wish.donor or wish.tokenizer):
        raise InputError("--emit: a task does not carry what cuts.warm_start reads (old_text, donor, tokenizer) yet")
    model = recipe.model.model_copy(update={"name": place(recipe.model.name)})
    train = tuple(place(name) for name in recipe.data.train)
    held_out = None if recipe.data.eval is None else tuple(place(name) for name in recipe.data.eval)
    data = recipe.data.model_copy(update={"train": train, "eval": held_out})
    output = recipe.output.model_copy(update={"folder": "run", "ledger": "ledger.sqlite"})
    return mounts, recipe.model_copy(update={"model": model, "data": data, "output": output})
