"""Measured results for people: a terminal table, Markdown, CSV and one self-contained HTML page."""

from histoedge.report.page import html
from histoedge.report.tables import SPARSITY_NOTE, csv_text, markdown, print_table, terminal

__all__ = ["SPARSITY_NOTE", "csv_text", "html", "markdown", "print_table", "terminal"]
