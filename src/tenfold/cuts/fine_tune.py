"""Cut 1: start from open weights instead of noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig


@dataclass(frozen=True)
class FineTune(Cut):
    """Load pre-trained weights; training from scratch is the counterfactual that it is priced against.

    Saves: all of pre-training; at 20 tokens per parameter (arXiv 2203.15556) an 8B model needs 160 billion tokens.
    Costs: reading the weights once.
    Evidence: computed, not measured: nobody trains from scratch to compare. Receipts label it so.
    Paper: Radford et al. 2018; Chinchilla (arXiv 2203.15556) for the counterfactual's tokens.
    """

    name: ClassVar[str] = "fine_tune"
    exact: ClassVar[bool] = False

    def price(self, job: Job) -> Job:
        """The recipe's epochs over the data, instead of 20 tokens per parameter."""
        return replace(job, pretrained=True)

    def apply(self, rig: Rig) -> Rig:
        """Replace the model's skeleton by the pre-trained one, weights loaded."""
        from tenfold.rig.model import load_pretrained

        return load_pretrained(rig)
