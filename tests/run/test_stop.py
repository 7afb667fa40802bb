"""Real signals to real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tenfold.errors import Interrupted, Preempted
from tenfold.run.stop import StopRequest

CHILD = """
import signal, sys, time
from contextlib import nullcontext
from pathlib import Path
from tenfold.errors import TenfoldError
from tenfold.run.stop import StopRequest

folder, how = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)
if how == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

def save():
    with (folder / "state").open("w", buffering=1) as file:
        for part in range(20):
            file.write(f"{part} ")
            if part == 2:
                print("saving", flush=True)
                sys.stdin.readline()  # until the signals have been sent
        file.write("whole")

if how == "unguarded":
    save()
try:
    with StopRequest() as stop:
        print("ready", flush=True)
        deadline = time.monotonic() + 300
        while stop.requested is None and time.monotonic() < deadline:
            time.sleep(0.005)
        save()
        raise stop.error(f"{stop.requested}")
except TenfoldError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def run_child(tmp_path: Path, first: str, while_saving: list[str], how: str = "plain") -> tuple[int, str, str]:
    """Exit code, last line, and what the child saved."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        if how != "unguarded":
            assert child.stdout.readline() == "ready\n"
            for name in first.split():
                child.send_signal(signal.Signals[name])
        assert child.stdout.readline() == "saving\n"
        for name in while_saving:
            child.send_signal(signal.Signals[name])
        out, _ = child.communicate("\n", timeout=600)
        return child.returncode, out.strip(), (tmp_path / "state").read_text()


@pytest.mark.parametrize(
    ("first", "while_saving", "how", "code", "named"),
    [
        ("SIGTERM", [], "plain", 75, "SIGTERM"),
        ("SIGINT", [], "plain", 130, "SIGINT"),
        ("SIGHUP", [], "plain", 75, "SIGHUP"),
        ("SIGINT", ["SIGINT", "SIGINT"], "plain", 130, "SIGINT"),
        ("SIGTERM", ["SIGTERM", "SIGINT", "SIGHUP"], "plain", 75, "SIGTERM"),
        ("SIGHUP SIGTERM", [], "nohup", 75, "SIGTERM"),
    ],
)
def test_signals(tmp_path: Path, first: str, while_saving: list[str], how: str, code: int, named: str) -> None:
    found_code, line, saved = run_child(tmp_path, first, while_saving, how)
    assert (found_code, line) == (code, named)
    assert saved.endswith("whole")


def test_the_same_signal_tears_an_unguarded_save(tmp_path: Path) -> None:
    code, _, saved = run_child(tmp_path, "", ["SIGTERM"], "unguarded")
    assert code == -signal.SIGTERM
    assert not saved.endswith("whole")


def test_handlers_return() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with StopRequest() as stop:
        assert not stop.inert
        assert all(signal.getsignal(number) not in before for number in numbers)
    assert stop.inert
    assert stop.requested is None
    assert [signal.getsignal(number) for number in numbers] == before


def test_inert_in_another_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[bool] = []

    def enter() -> None:
        with StopRequest() as stop:
            seen.append(stop.inert and signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize(("name", "kind"), [("SIGTERM", Preempted), ("SIGHUP", Preempted), ("SIGINT", Interrupted)])
def test_errors(name: str, kind: type[Exception]) -> None:
    stop = StopRequest()
    stop.requested = name
    assert type(stop.error("why")) is kind


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("when", ["before", "inside", "swallowed"])
def test_at_once(name: str, when: str) -> None:
    """What has nothing to save ends where it stands; on the way out a second signal changes nothing."""
    done: list[str] = []
    number = signal.Signals[name]
    with StopRequest() as stop, pytest.raises((Preempted, Interrupted), match=f"{name} before the first step"):
        if when == "before":
            signal.raise_signal(number)
        with stop.at_once():
            try:
                signal.raise_signal(number)
                done.append("went on")
            except (Preempted, Interrupted):
                signal.raise_signal(signal.SIGTERM)
                done.append("way out")
                if when != "swallowed":
                    raise
    assert done == ([] if when == "before" else ["way out"])


def test_signals_wait_outside_of_it() -> None:
    """The control."""
    with StopRequest() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
    assert stop.requested == "SIGTERM"
