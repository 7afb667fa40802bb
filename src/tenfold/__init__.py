"""tenfold: fine-tune transformer models for a tenth of the usual cost, and prove it.

plan = tenfold.plan("recipe.yaml")     # what it would cost, on which machine, with which cuts; no torch
findings = tenfold.check("recipe.yaml")    # nonsense found before it is paid for
receipt = tenfold.train(plan)          # do it, never over budget
rig = tenfold.apply(model, [tenfold.LoRA(rank=16), tenfold.Fuse()])    # the cuts in your own loop
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.api import apply, check, plan, train
    from tenfold.cuts import CUTS, Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, WarmStart
    from tenfold.planner import Plan
    from tenfold.receipt import Receipt
    from tenfold.recipe import Recipe, load_recipe

__version__ = "0.1.0"

_HOMES = {
    "tenfold.api": ("apply", "check", "plan", "train"),
    "tenfold.cuts": ("CUTS", "Checkpoint", "Cut", "FineTune", "Fuse", "LoRA", "Pack", "Quantize", "WarmStart"),
    "tenfold.planner": ("Plan",),
    "tenfold.receipt": ("Receipt",),
    "tenfold.recipe": ("Recipe", "load_recipe"),
}

__all__ = [
    "CUTS",
    "Checkpoint",
    "Cut",
    "FineTune",
    "Fuse",
    "LoRA",
    "Pack",
    "Plan",
    "Quantize",
    "Receipt",
    "Recipe",
    "WarmStart",
    "__version__",
    "apply",
    "check",
    "load_recipe",
    "plan",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that `import tenfold` costs milliseconds."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
