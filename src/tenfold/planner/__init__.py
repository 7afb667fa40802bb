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
    WorkloadOnPaper,
)
from tenfold.planner.search import make_plan

__all__ = [
    "MachineOnPaper",
    "OnMachine",
    "Plan",
    "Prediction",
    "Rejected",
    "RunnerUp",
    "ShapeOnPaper",
    "WorkloadOnPaper",
    "baseline_epochs",
    "make_plan",
]
