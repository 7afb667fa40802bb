"""Rows of one benchmark in one file, added as they finish: what was measured is never measured twice; and legs run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from measure import machine


def leg_row(name: str, work: Path, seconds: float) -> dict[str, Any]:
    """The row of one of configurations.py, measured by leg.py; or why there is none, after so many seconds at most."""
    out = work / "row.json"
    command = [sys.executable, str(Path(__file__).with_name("leg.py")), name, str(work), str(out)]
    try:
        with tempfile.TemporaryDirectory() as caches:  # each finds nothing compiled
            own = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), caches)
            done = subprocess.run(
                command, env=os.environ | own, capture_output=True, text=True, timeout=seconds, check=False
            )
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"took longer than {seconds:.0f} s"}
    if done.returncode != 0:
        return {"name": name, "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(out.read_text())


class Collection:
    """The rows of a results file."""

    def __init__(self, path: Path, benchmark: str) -> None:
        self.path = path
        self.body: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.body.setdefault("benchmark", benchmark)
        self.body.setdefault("machine", machine())
        self.body.setdefault("rows", [])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return self.body["rows"]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that have no row without an error."""
        done = {row["name"] for row in self.rows if "error" not in row}
        return [name for name in names if name not in done]

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, in the place of an earlier one of its name."""
        self.body["rows"] = [other for other in self.rows if other["name"] != row["name"]] + [row]
        self.save()

    def save(self) -> None:
        """Write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.body, indent=1) + "\n")
