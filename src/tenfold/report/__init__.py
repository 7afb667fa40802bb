"""Pages made of receipts: for a terminal, for a pipe, and one HTML file. Pure functions: same receipt, same page."""

from tenfold.report.html import render_html, write_html
from tenfold.report.ledger import render_ledger
from tenfold.report.text import plain_lines, render, render_text

__all__ = ["plain_lines", "render", "render_html", "render_ledger", "render_text", "write_html"]
