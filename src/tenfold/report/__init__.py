"""Pages made of receipts and plans: for a terminal, for a pipe, and one HTML file. Pure: same receipt, same page."""

from tenfold.report.html import render_html, write_html
from tenfold.report.ledger import render_ledger
from tenfold.report.plan_html import render_plan_html, write_plan_html
from tenfold.report.text import plain_lines, render, render_text

__all__ = [
    "plain_lines",
    "render",
    "render_html",
    "render_ledger",
    "render_plan_html",
    "render_text",
    "write_html",
    "write_plan_html",
]
