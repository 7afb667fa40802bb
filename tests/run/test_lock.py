"""One output folder, one recipe, one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenfold.errors import InputError
from tenfold.run.lock import OutputLock, claim_output

HOLDER = """
import sys
from pathlib import Path
from tenfold.run.lock import OutputLock

with OutputLock(Path(sys.argv[1]), "run-7"):
    print("held", flush=True)
    sys.stdin.readline()  # until it is killed
"""

CLAIMER = """
import sys
from pathlib import Path
from tenfold.errors import InputError
from tenfold.run.lock import claim_output

print("ready", flush=True)
sys.stdin.readline()
try:
    claim_output(Path(sys.argv[1]), sys.argv[2])
    print("mine")
except InputError:
    print("refused")
"""

MINE, OTHER = "a" * 64, "b" * 64
DEAD = 2**22 + 1
"""No process has this id: it is above Linux's largest (PID_MAX_LIMIT)."""


@contextmanager
def python(code: str, *arguments: str) -> Generator[subprocess.Popen[str], None, None]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with python(HOLDER, str(tmp_path)) as child:
        assert line_of(child) == "held"
        with pytest.raises(InputError) as caught, OutputLock(tmp_path):
            pass
        message = str(caught.value)
        for named in (str(tmp_path), f"process {child.pid} on {socket.gethostname()}", "'run-7'", "output.folder"):
            assert named in message
        assert "\n" not in message
        child.kill()  # SIGKILL: nothing tidies up
        child.wait()
    assert json.loads((tmp_path / "lock.json").read_text())["pid"] == child.pid
    with OutputLock(tmp_path, "next"):
        note = json.loads((tmp_path / "lock.json").read_text())
    assert (note["pid"], note["run"]) == (os.getpid(), "next")
    assert not (tmp_path / "lock.json").exists()


def test_a_holder_that_is_not_the_one_in_the_note(tmp_path: Path) -> None:
    """A process that a killed run had started may keep its lock, where the lock is inherited."""
    with OutputLock(tmp_path):
        note = json.loads((tmp_path / "lock.json").read_text())
        (tmp_path / "lock.json").write_text(json.dumps({**note, "pid": DEAD}))
        with pytest.raises(InputError, match="has died, but a process it started still holds"), OutputLock(tmp_path):
            pass
        (tmp_path / "lock.json").write_text(json.dumps({**note, "pid": DEAD, "host": "elsewhere"}))
        with (
            pytest.raises(InputError, match=f"process {DEAD} on elsewhere, .* holds this folder; wait"),
            OutputLock(tmp_path),
        ):
            pass


def test_twice_in_one_process(tmp_path: Path) -> None:
    with OutputLock(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()}"), OutputLock(tmp_path):
            pass
        (tmp_path / "lock.json").write_text("{")
        with pytest.raises(InputError, match="another run holds this folder"), OutputLock(tmp_path):
            pass
    with OutputLock(tmp_path):
        pass


def test_lock_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be locked"), OutputLock(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("there", "refusal"),
    [
        ({}, None),
        ({"run.json": json.dumps({"recipe_sha256": MINE}), "receipt.json": "{}"}, None),
        ({".lock": "", "lock.json": "{}", "lost+found": "", ".tmp-run.json-77": "{"}, None),
        (
            {"run.json": json.dumps({"recipe_sha256": OTHER})},
            r"another recipe \(hash bbbbbbbbbbbb, yours has aaaaaaaaaaaa\)",
        ),
        (
            {"thesis.tex": "", "a.txt": ""},
            r"is not empty and holds no run: 'a.txt' and 1 more; name a new output\.folder",
        ),
        ({"a\n\x1b[2Jb": ""}, r"holds no run: 'a b'; name"),
        ({"run.json": ""}, "run.json: damaged"),
        ({"run.json": "[1]"}, "run.json: damaged"),
        ({"run.json": '{"recipe_sha256": 5}'}, "run.json: damaged"),
    ],
)
def test_claim(tmp_path: Path, there: dict[str, str], refusal: str | None) -> None:
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    for name, content in there.items():
        (folder / name).write_text(content)
    if refusal is None:
        claim_output(folder, MINE)
        claim_output(folder, MINE)
        assert json.loads((folder / "run.json").read_text())["recipe_sha256"] == MINE
        with pytest.raises(InputError, match="another recipe"):
            claim_output(folder, OTHER)
        return
    with pytest.raises(InputError, match=refusal) as caught:
        claim_output(folder, MINE)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_text() for path in folder.iterdir()} == there, "a refused folder is left as it was"


def test_claim_makes_the_folder(tmp_path: Path) -> None:
    claim_output(tmp_path / "a" / "b", MINE)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["run.json"]


def test_claim_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"cannot be used as output\.folder"):
            claim_output(path, MINE)


def test_of_two_claims_at_once_one_wins(tmp_path: Path) -> None:
    for number in range(3):
        folder = str(tmp_path / str(number))
        with python(CLAIMER, folder, MINE) as one, python(CLAIMER, folder, OTHER) as two:
            for child in (one, two):
                assert line_of(child) == "ready"
            for child in (one, two):
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            assert sorted([line_of(one), line_of(two)]) == ["mine", "refused"]
