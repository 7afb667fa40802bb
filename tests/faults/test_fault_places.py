"""Folders that go, terminals that close, disks that cannot be read, libraries that change: said, and nothing lost."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fault_runs import Died, die_at, plan_of, same_weights, weights

import tenfold
from jobs import make_recipe, stepping
from saved_states import save
from tenfold.errors import InputError, TenfoldError
from tenfold.receipt import Receipt
from tenfold.run import checkpoint
from tenfold.run import environment as environment_module
from tenfold.run import run as run_module
from tenfold.run.checkpoint import load_tensors, newest_state
from tenfold.run.events import Event

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
VERSION_1 = Path(__file__).with_name("checkpoint-version-1")


def test_a_folder_deleted_in_the_middle_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """Nothing is half made anew: the same command starts over."""

    def delete(event: Event) -> None:
        if event.kind == "step" and event.values["step"] == 5 and not deleted:
            deleted.append(True)
            shutil.rmtree(tmp_path / "run")

    deleted: list[bool] = []
    plan = plan_of(tmp_path)
    with pytest.raises(TenfoldError, match=r"run: was deleted or replaced while the run wrote into it; .* start over"):
        tenfold.train(plan, [delete])
    assert not (tmp_path / "run").exists()
    assert tenfold.train(plan).status == "done"


def test_a_folder_that_stays_is_written_to(tmp_path: Path) -> None:
    """The control of the test above."""
    assert tenfold.train(plan_of(tmp_path), [lambda event: None]).status == "done"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_an_observer_that_cannot_write_ends_no_run(number: int, tmp_path: Path) -> None:
    heard: list[str] = []

    def closed(event: Event) -> None:
        heard.append(event.kind)
        if event.kind == "step":
            raise OSError(number, os.strerror(number))

    receipt = tenfold.train(plan_of(tmp_path), [closed])
    assert receipt.status == "done"
    assert heard.count("step") == 1, "it is asked no more"
    assert any("progress is no longer shown or tracked" in event.text for event in receipt.events)


def test_a_closed_terminal_ends_no_run(tmp_path: Path) -> None:
    """The reader of stderr goes away in the middle, as with a dropped ssh session."""
    recipe = make_recipe(tmp_path, train={"log_every_steps": 1, "epochs": 4})
    with stepping(tmp_path, recipe) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(timeout=600) == 0
    assert Receipt.read(tmp_path / "run" / "receipt.json").status == "done"


def test_a_checkpoint_that_cannot_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO while the newest is read: it is named, and the one before used."""
    for step in (40, 80):
        save(tmp_path, step)
    read = checkpoint._sha256

    def failing(path: Path) -> str:
        if path.parent.name == "step-00000080":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(checkpoint, "_sha256", failing)
    saved = newest_state(tmp_path)
    assert saved is not None
    assert saved.step == 40
    assert "step-00000080: " in saved.skipped[0]
    assert "Input/output error" in saved.skipped[0]


def test_a_checkpoint_of_the_first_version_is_read() -> None:
    """Its files are kept as they were written, one folder for each version of the format."""
    saved = newest_state(VERSION_1)
    assert saved is not None
    assert (saved.step, saved.skipped, checkpoint.SCHEMA_VERSION) == (120, (), 1)
    assert {float(value.flatten()[0]) for value in load_tensors(saved, "cpu").values()} == {120.0}


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A plan whose run was killed after its second checkpoint, beside the same run without a fault."""
    tenfold.train(plan_of(tmp_path, "whole"))
    plan = plan_of(tmp_path, "parts")
    with monkeypatch.context() as patch:
        die_at(patch, run_module, "save_state", 3)
        with pytest.raises(Died):
            tenfold.train(plan)
    return plan


@pytest.mark.parametrize(
    ("what", "value"), [("torch", "9.9.0"), ("transformers", "9.9.0"), ("threads", "96"), ("device", "another CPU")]
)
def test_another_environment_is_recorded_as_not_bit_exact(
    stopped, what: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environment_module.environment
    monkeypatch.setattr(run_module, "environment", lambda device: {**real(device), what: value})
    receipt = tenfold.train(stopped)
    before = real(torch.device("cpu"))[what]
    assert [event.text for event in receipt.events if "bit-exact" in event.text] == [
        f"not bit-exact: {what} {value} (was {before})"
    ]


def test_the_same_environment_is_bit_exact(stopped, tmp_path: Path) -> None:
    """The control: nothing is said, and it is true."""
    receipt = tenfold.train(stopped)
    assert not any("bit-exact" in event.text for event in receipt.events)
    assert same_weights(tmp_path, "whole", "parts")


def test_other_weights_in_a_checkpoint_are_refused(stopped, tmp_path: Path, monkeypatch) -> None:
    """As where a library has renamed a model's parts, or given them another shape."""
    load = run_module.load_tensors

    def renamed(saved, device):
        tensors = load(saved, device)
        name = min(name for name in tensors if name.startswith("weights/"))
        return {("weights/other" if key == name else key): value for key, value in tensors.items()}

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "load_tensors", renamed)
        with pytest.raises(InputError, match=r"step-00000004: holds other weights than this model learns: .*other"):
            tenfold.train(stopped)
    tenfold.train(stopped)
    assert weights(tmp_path, "parts").keys() == weights(tmp_path, "whole").keys()


@pytest.mark.parametrize(("files", "code"), [(64, 0), (4, None)], ids=["enough", "control: too few to begin"])
def test_few_open_files_are_enough(files: int, code: int | None, tmp_path: Path) -> None:
    """Rows are laid out in the run's own process: there are no workers, and no shared memory that they would fill."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(make_recipe(tmp_path, train={"max_steps": 2, "epochs": None})))
    command = f"ulimit -n {files}; exec {shlex.join([sys.executable, '-m', 'tenfold', 'train', 'recipe.yaml'])}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode == 0) == (code == 0), done.stderr
    assert (tmp_path / "run" / "receipt.json").exists() == (code == 0)
