"""Measured results for people: terminal tables, Markdown, CSV and one self-contained HTML page."""

from histoedge.reporting.notes import SPARSITY_NOTE
from histoedge.reporting.page import html, read_sheet
from histoedge.reporting.tables import csv_text, markdown
from histoedge.reporting.terminal import print_table, terminal

__all__ = ["SPARSITY_NOTE", "csv_text", "html", "markdown", "print_table", "read_sheet", "terminal"]
