"""What commands print: aligned tables, or one JSON document."""

import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=1, default=str))


def print_rows(rows: Iterable[dict[str, Any]], *, as_json: bool = False) -> None:
    """Rows as an aligned table, in a terminal no wider than that, or as JSON."""
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns] + [[_shown(row.get(column)) for column in columns] for row in rows]
    for line in _aligned(table, shutil.get_terminal_size().columns if sys.stdout.isatty() else None):
        click.echo(line)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _aligned(table: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Lines of the table; with a ``width``, the widest cells go on below themselves, between words, to keep to it."""
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
            lines.append("  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)).rstrip())
    return lines
