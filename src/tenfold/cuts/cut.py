"""What every cut is: a frozen value that changes a job on paper and a rig for real."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

    from tenfold.job import Job
    from tenfold.rig.rig import Rig


class Cut:
    """One way to spend less. Subclasses are frozen dataclasses without further subclasses."""

    name: ClassVar[str]
    """Its key in recipes, plans and receipts."""

    exact: ClassVar[bool]
    """True: the same losses to float tolerance. False: a measured quality interval is owed."""

    before_weights: ClassVar[bool] = False
    """For real it comes before every cut that is not so: it settles where weights go, and then they are read."""

    def price(self, job: Job) -> Job:
        """The job with this cut, by arithmetic alone; the same job if this cut cannot change it."""
        raise NotImplementedError

    def begin(self, device: torch.device) -> None:
        """Start what takes a while and needs no model, beside this thread; nothing where it has been started."""

    def apply(self, rig: Rig) -> Rig:
        """The rig with this cut. Raises NoEffect if nothing changed."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """This cut as it stands in a plan: its name under "cut", then its settings."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {"cut": self.name, **settings}


def on_paper(cuts: Iterable[Cut], job: Job) -> Job:
    """Fold the cuts over a job: the prediction."""
    return reduce(lambda changed, cut: cut.price(changed), cuts, job)


def on_rig(cuts: Iterable[Cut], rig: Rig) -> Rig:
    """Fold the same cuts over a rig: the run."""
    ordered = sorted(cuts, key=lambda cut: not cut.before_weights)
    for cut in ordered:
        cut.begin(rig.device)
    return reduce(lambda changed, cut: cut.apply(changed), ordered, rig)
