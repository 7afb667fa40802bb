"""Where a user's own files are, by the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path


def config_folder() -> Path:
    """What the user writes: prices."""
    return _folder("XDG_CONFIG_HOME", ".config")


def data_folder() -> Path:
    """What tenfold keeps for the user: the ledger, measured machines."""
    return _folder("XDG_DATA_HOME", ".local/share")


def _folder(variable: str, default: str) -> Path:
    stated = os.environ.get(variable, "")  # a relative path is to be ignored, says the specification
    return (Path(stated) if Path(stated).is_absolute() else Path.home() / default) / "tenfold"
