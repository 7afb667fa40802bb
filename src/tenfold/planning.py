"""What `tenfold plan` is asked for on the command line, and the files that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tenfold.api import plan
from tenfold.emit import write_skypilot
from tenfold.errors import InputError
from tenfold.planner import Plan
from tenfold.recipe.foreign import Dialect, load_foreign
from tenfold.report import write_plan_html

CONFIGURATIONS = (".yaml", ".yml")
DEFAULT_PLAN = Path("plan.json")
"""Where the plan goes that an emitted task needs, if nobody says."""


@dataclass(frozen=True)
class Wanted:
    """The arguments, as typed."""

    sources: tuple[str, ...]
    """A recipe, a plan, another tool's file; or a model and its data."""
    overrides: tuple[str, ...] = ()
    price: float | None = None
    dialects: tuple[Dialect, ...] = ()
    out: tuple[Path, ...] = ()
    emit: str | None = None


def make_and_write(wanted: Wanted) -> tuple[Plan, tuple[Path, ...]]:
    """The plan, and the files that were written. Raises InputError before anything is written."""
    for path in wanted.out:
        if path.suffix not in (".json", ".html"):
            raise InputError(f"--out {path}: write a name ending in .json (for tenfold train) or .html (for people)")
    if wanted.emit not in (None, "skypilot"):
        raise InputError(f"--emit: found {wanted.emit!r}, expected skypilot")
    chosen = make(wanted)
    written: list[Path] = []
    for path in wanted.out:
        if path.suffix == ".json":
            chosen.write(path)
        else:
            write_plan_html(chosen, path)
        written.append(path)
    if wanted.emit is not None:
        beside = next((path for path in wanted.out if path.suffix == ".json"), DEFAULT_PLAN)
        written += write_skypilot(chosen, beside)
    return chosen, tuple(written)


def make(wanted: Wanted) -> Plan:
    """The plan alone."""
    overrides = wanted.overrides
    if wanted.price is not None:
        if wanted.price <= 0:
            raise InputError(f"--price: found {wanted.price:g}, expected dollars per hour above 0")
        overrides = (*overrides, f"machine.usd_per_hour={wanted.price!r}")
    first = Path(wanted.sources[0])
    dialects = list(wanted.dialects)
    if dialects:
        if len(dialects) > 1 or len(wanted.sources) > 1:
            raise InputError(f"--from-{dialects[-1]}: give one of these options, and one file")
        foreign = load_foreign(first, dialects[0], overrides)
        return plan(foreign.recipe, notes=foreign.ignored)
    if first.suffix == ".json" and len(wanted.sources) == 1:
        if overrides:
            option = "--set" if wanted.overrides else "--price"
            raise InputError(f"{option}: changes a recipe, but a plan is already made; plan again with {option}")
        return Plan.read(first)
    if len(wanted.sources) == 1:
        return plan(first, overrides)
    if first.suffix in CONFIGURATIONS:
        raise InputError(f"found a recipe, {first}, and {wanted.sources[1]!r}; a recipe names its own data")
    return plan(None, overrides, model=wanted.sources[0], data=wanted.sources[1:])
