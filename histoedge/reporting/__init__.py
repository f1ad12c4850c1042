"""Reports of measured results: terminal tables, Markdown, CSV, a self-contained HTML page, and JSON for programs."""

from histoedge.reporting.document import document
from histoedge.reporting.notes import SPARSITY_NOTE
from histoedge.reporting.page import html, read_sheet
from histoedge.reporting.subject import name_of
from histoedge.reporting.tables import csv_text, markdown
from histoedge.reporting.terminal import print_table, terminal

__all__ = [
    "SPARSITY_NOTE",
    "csv_text",
    "document",
    "html",
    "markdown",
    "name_of",
    "print_table",
    "read_sheet",
    "terminal",
]
