"""Several processes where one trains: each refuses at once, for itself, before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_runs import plan_of

import tenfold
from command_line import call
from jobs import make_recipe
from tenfold.errors import InputError
from tenfold.processes import COUNTS, check_alone

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
WORKER = """
import json, os, subprocess, sys
done = subprocess.run([sys.executable, "-m", "tenfold", "train", sys.argv[1]], capture_output=True, text=True)
with open(sys.argv[2] + os.environ["RANK"], "w") as file:
    json.dump([done.returncode, done.stderr], file)
"""
"""Outlives its refusal: torchrun would end the others with the first that fails."""


@pytest.mark.parametrize("processes", [1, 2])
def test_under_torchrun(processes: int, tmp_path: Path) -> None:
    """Every rank refuses two processes; one, the control, gets as far as its recipe, which is not there."""
    (tmp_path / "worker.py").write_text(WORKER)
    recipe, said = tmp_path / "recipe.yaml", tmp_path / "rank-"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {key: value for key, value in os.environ.items() if key not in COUNTS}
    done = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(recipe), str(said)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for rank in range(processes):
        code, error = json.loads(Path(f"{said}{rank}").read_text())
        assert code == 2
        line = (
            f"a launcher has started 2 processes, of which this is number {rank}, but"
            if processes == 2
            else "recipe.yaml"
        )
        assert len(error.splitlines()) == 1 and line in error
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["worker.py", *(f"rank-{rank}" for rank in range(processes))]
    )


@pytest.mark.parametrize("count", COUNTS)
def test_each_launcher_is_known(count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """A plan is made all the same."""
    for name in COUNTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(count, "2")
    monkeypatch.setenv(COUNTS[count], "1")
    recipe = make_recipe(tmp_path)
    plan = tenfold.plan(recipe)
    plan.write(tmp_path / "plan.json")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"^{count} is 2: .* of which this is number 1, .*; start it once, without"):
        tenfold.train(plan)
    outcome = call(["train", str(tmp_path / "plan.json")], monkeypatch, capfd)
    assert (outcome.code, len(outcome.said), outcome.out) == (2, 1, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_one_process_trains_whatever_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count, rank in COUNTS.items():
        monkeypatch.setenv(count, "1")
        monkeypatch.setenv(rank, "0")
    assert tenfold.train(plan_of(tmp_path)).status == "done"


@pytest.mark.parametrize("value", ["", "1", "0", "x", "-2", "²"])
def test_what_is_no_number_of_processes(value: str) -> None:
    check_alone({"WORLD_SIZE": value, "SLURM_NTASKS": "8"})
