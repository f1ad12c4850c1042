"""Print aligned tables, or one JSON document."""

import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(document, indent=1, default=str))


def print_rows(rows: Iterable[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print rows as an aligned table that fits the terminal, or as JSON.

    Columns of numbers are right-aligned, columns of text left-aligned.
    """
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns] + [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [_is_numeric([row.get(column) for row in rows]) for column in columns]
    for line in _lines(table, numeric, shutil.get_terminal_size().columns if sys.stdout.isatty() else None):
        click.echo(line)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column contains numbers only; None stands for a missing value."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)


def _lines(table: Sequence[Sequence[str]], numeric: Sequence[bool], width: int | None = None) -> list[str]:
    """Return the lines of the table; with a ``width`` the widest columns are wrapped between words to fit it."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    words = [max(len(word) for row in table for word in row[column].split() or [""]) for column in range(len(widths))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=lambda column: widths[column] - words[column])
        if widths[widest] <= words[widest]:
            break
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = [textwrap.wrap(cell, wide) or [""] for cell, wide in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            columns = zip(line, widths, numeric, strict=True)
            padded = (cell.rjust(wide) if right else cell.ljust(wide) for cell, wide, right in columns)
            lines.append("  ".join(padded).rstrip())
    return lines
