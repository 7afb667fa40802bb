"""The planner: every combination of cuts and machines priced, and the cheapest that meets the wishes."""

from tenfold.planner.naive import baseline_epochs
from tenfold.planner.plan import (
    MachineOnPaper,
    OnMachine,
    Plan,
    Prediction,
    Rejected,
    RunnerUp,
    ShapeOnPaper,
    VocabularyOnPaper,
    WorkloadOnPaper,
)
from tenfold.planner.search import make_plan
from tenfold.planner.sizes import VocabularySizes, compare_sizes
from tenfold.planner.vocabulary import plan_vocabulary
from tenfold.planner.warm_start import check_warm_start

__all__ = [
    "MachineOnPaper",
    "OnMachine",
    "Plan",
    "Prediction",
    "Rejected",
    "RunnerUp",
    "ShapeOnPaper",
    "VocabularyOnPaper",
    "VocabularySizes",
    "WorkloadOnPaper",
    "baseline_epochs",
    "check_warm_start",
    "compare_sizes",
    "make_plan",
    "plan_vocabulary",
]
