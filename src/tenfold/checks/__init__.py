"""Nonsense found before the meter starts: each check is a plain function, the cheap ones first. Imports no torch."""

from tenfold.checks.paper import Paper
from tenfold.checks.preflight import LIMIT_SECONDS, PAPER_CHECKS, Checked, check_paper, refuse

__all__ = ["LIMIT_SECONDS", "PAPER_CHECKS", "Checked", "Paper", "check_paper", "refuse"]
