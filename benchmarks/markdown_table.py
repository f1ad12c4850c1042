"""Markdown tables: text columns left-aligned, columns of figures right-aligned."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

HEADINGS = {
    "asked": "expected",
    "called_drift": "reported as drift",
    "found": "value",
    "holds": "as expected",
    "made": "case",
    "of": "of",
    "otherwise": "other diagnoses",
    "said_of_the_first": "first report",
    "to_be_named": "correct diagnosis",
    "what": "step",
}
"""Headings that differ from the key in the results document."""


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]], *, text: Collection[str]) -> str:
    """Return a table of cells that are formatted already.

    Args:
        head: headings.
        lines: the cells of each row.
        text: headings of the left-aligned columns.
    """
    rule = "|".join("---" if name in text else "---:" for name in head)
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]
    return "\n".join(["| " + " | ".join(head) + " |", f"|{rule}|", *rows]) + "\n"


def records_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows of a results document. A column is right-aligned if all its values are numbers."""
    text = [name for name in columns if not all(_is_number(row.get(name)) for row in rows)]
    heads = [HEADINGS.get(name, name) for name in columns]
    lines = [[cell_text(row.get(name)) for name in columns] for row in rows]
    return markdown_table(heads, lines, text=[HEADINGS.get(name, name) for name in text])


def cell_text(value: Any) -> str:
    """Return the text of a value: floats with four significant digits, lists with commas, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
