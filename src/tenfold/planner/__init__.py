"""The planner: every combination of cuts and machines priced, and the cheapest that meets the wishes."""

from tenfold.planner.plan import MachineOnPaper, Plan, Prediction, Rejected, RunnerUp, ShapeOnPaper, WorkloadOnPaper
from tenfold.planner.search import make_plan

__all__ = [
    "MachineOnPaper",
    "Plan",
    "Prediction",
    "Rejected",
    "RunnerUp",
    "ShapeOnPaper",
    "WorkloadOnPaper",
    "make_plan",
]
