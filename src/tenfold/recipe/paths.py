"""Paths in a recipe: what exists beside the recipe is meant from there."""

from __future__ import annotations

from pathlib import Path

from tenfold.recipe.canonical import Leaf
from tenfold.recipe.words import KeyPath
from tenfold.recipe.yaml_lines import Located

WARM_START = ("cuts", "warm_start")
INPUTS = (
    ("model", "name"),
    ("data", "train"),
    ("data", "eval"),
    *((*WARM_START, key) for key in ("tokens", "tokenizer", "donor", "old_text")),
)
OUTPUTS = (("output", "folder"), ("output", "ledger"))


def place_paths(leaves: dict[KeyPath, Leaf], folder: Path) -> None:
    """Make inputs that exist beside the recipe absolute, and `~` the home folder; all else stays as typed.

    A name on the command line is looked for in the current folder first. Outputs are meant from there, too.
    """
    for key in (*INPUTS, *OUTPUTS):
        leaf = leaves.get(key)
        if leaf is not None:
            bases = () if key in OUTPUTS else (folder,)
            leaves[key] = Leaf(_placed(leaf.found, bases), leaf.typed)


def _placed(found: Located, bases: tuple[Path, ...]) -> Located:
    if found.items is not None:
        return Located(tuple(_placed(item, bases) for item in found.items), found.place)
    if not isinstance(found.value, str):
        return found
    first = (Path.cwd(), *bases) if bases and found.place.on_command_line else bases
    return Located(_absolute(found.value, first), found.place)


def _absolute(name: str, bases: tuple[Path, ...]) -> str:
    if not name or name.startswith("~/"):
        return str(Path(name).expanduser()) if name else name
    for base in bases:
        try:
            if (base / name).exists():
                return str(base / name)  # not resolved: a symbolic link keeps the name and suffix it was given
        except (OSError, ValueError):  # too long for a file name, or with a null character: refused by the schema
            return name
    return name
