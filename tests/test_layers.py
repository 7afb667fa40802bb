"""Imports follow the flow: nothing imports to its right."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "tenfold"

LAYERS = (
    ("redact",),
    ("errors", "inert", "interval", "hub", "durable", "memory", "folders", "processes", "collector"),
    ("recipe",),
    ("shape", "machine"),
    ("data",),
    ("vocabulary",),
    ("workload",),
    ("job",),
    ("rig", "cuts"),
    ("planner",),
    ("receipt", "compare", "ledger"),
    ("export",),
    ("checks",),
    ("run",),
    ("calibrate",),
    ("report",),
    ("prove",),
    ("api", "emit"),
    ("planning",),
    ("demo",),
    ("cli", "__main__", "__init__"),
)
"""Left to right; a module may import from its own layer and from those to its left."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def module_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Top-level tenfold modules that `path` imports, wherever in the file, type checking included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tenfold."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tenfold.")}
    return names


def test_every_module_has_its_place() -> None:
    assert {module_of(path) for path in SOURCE.rglob("*.py")} == set(RANK)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_left(path: Path) -> None:
    rank = RANK[module_of(path)]
    assert not {name for name in imported(path) if RANK[name] > rank}


@pytest.mark.parametrize(
    "module", ["tenfold", "tenfold.api", "tenfold.cli", "tenfold.cuts", "tenfold.report", "tenfold.ledger"]
)
def test_no_torch_on_import(module: str) -> None:
    program = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
