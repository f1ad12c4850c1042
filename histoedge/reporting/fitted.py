"""Tables that fit the width of a terminal: names are folded, and the least important figures are omitted."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 1
FOLDERS, WORDS, ALL_WORDS = "/ ", "/ -", "/ -_"
"""Characters after which names may be folded, in three levels from few to many."""


@dataclass(frozen=True)
class Column:
    """A heading and its cells.

    ``short`` are shorter cells, such as values without intervals, for the heading ``short_name``. ``fold_after``: the
    characters after which names may continue on another line; empty for columns that are never folded. ``left``: for
    text; numbers are right-aligned. ``spare``: the order in which columns are omitted in a narrow terminal, 1 the
    first; None for columns that are always shown. ``styles``: of rich, one for each cell, or none.
    """

    name: str
    cells: tuple[str, ...]
    short: tuple[str, ...] | None = None
    short_name: str = ""
    fold_after: str = ""
    left: bool = False
    spare: int | None = None
    styles: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width of the widest cell in characters."""
        return max(map(len, (self.name, *self.cells)))

    @property
    def min_width(self) -> int:
        """Width of the longest part that is not folded."""
        texts = (self.name, *self.cells)
        return max(len(part.rstrip()) for text in texts for part in parts(text, self.fold_after))

    def text(self, number: int) -> Text:
        """Return the cell of this row."""
        return Text(self.cells[number], style=self.styles[number] if self.styles else "")

    def shortened(self) -> "Column":
        """Return the column in its short form."""
        if self.short is None:
            return self
        return dataclasses.replace(self, name=self.short_name or self.name, cells=self.short, short=None)

    def folded(self, width: int) -> "Column":
        """Return the column with cells of several lines, at most ``width`` wide if the parts permit."""
        name, *cells = (fold(text, self.fold_after, width) for text in (self.name, *self.cells))
        return dataclasses.replace(self, name=name, cells=tuple(cells))


class FittedTable:
    """A table that adapts to the width it is printed in; a line below it lists the omitted columns."""

    def __init__(self, title: str, columns: Sequence[Column], styles: Sequence[str] = ()) -> None:
        """Every column has the same number of cells; ``styles`` has one entry for each row, or none."""
        self._title, self._columns, self._styles = title, columns, styles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a table of the columns that fit, for rich."""
        shown, omitted = fit(self._columns, options.max_width)
        yield self._table(shown)
        if omitted:
            yield Text(f"not shown in {options.max_width} columns: {', '.join(omitted)}", style="dim")

    def _table(self, columns: Sequence[Column]) -> Table:
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        if self._title:
            table.title, table.title_justify, table.title_style = Text(self._title, style="bold"), "left", "not italic"
        for column in columns:
            table.add_column(column.name, justify="left" if column.left else "right", overflow="fold")
        for number in range(len(columns[0].cells)):
            style = self._styles[number] if self._styles else ""
            table.add_row(*(column.text(number) for column in columns), style=style)
        return table


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return the columns in the most complete form that fits into ``width`` characters, and the omitted names.

    The order of the columns stays. Forms are tried in this order: all columns; without the spare columns, one by one;
    names folded at folders, then at hyphens; figures shortened, from the first column on; names folded at every word.
    If even that is too wide, rich folds the rest.
    """
    spare = sorted((column.spare, number) for number, column in enumerate(columns) if column.spare is not None)
    for count in range(len(spare) + 1):
        omitted = [number for _, number in spare[:count]]
        shown = [column for number, column in enumerate(columns) if number not in omitted]
        if _total([column.width for column in shown]) <= width:
            break
    omitted_names = [columns[number].name for number in sorted(omitted)]
    for form in _forms(shown):
        widths = [column.min_width if column.fold_after else column.width for column in form]
        if _total(widths) <= width:
            return _folded_to_fit(form, width), omitted_names
    return _folded_to_fit(form, width), omitted_names


def _forms(columns: Sequence[Column]) -> Iterator[list[Column]]:
    yield [_foldable_at(column, FOLDERS) for column in columns]
    form = [_foldable_at(column, WORDS) for column in columns]
    yield list(form)
    for number, column in enumerate(columns):
        if column.short is not None:
            form[number] = column.shortened()
            yield list(form)
    yield [_foldable_at(column, ALL_WORDS) for column in form]


def _foldable_at(column: Column, separators: str) -> Column:
    if not column.fold_after:
        return column
    return dataclasses.replace(column, fold_after=separators)


def _folded_to_fit(form: Sequence[Column], width: int) -> list[Column]:
    """Fold names into the width that the figures leave, first the column with the most spare width."""
    widths = [column.width for column in form]
    foldable = [number for number, column in enumerate(form) if column.fold_after]
    while foldable and _total(widths) > width:
        widest = max(foldable, key=lambda number: widths[number] - form[number].min_width)
        if widths[widest] <= form[widest].min_width:
            break
        widths[widest] -= 1
    return [
        column.folded(column_width) if column.fold_after else column
        for column, column_width in zip(form, widths, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def parts(name: str, separators: str) -> list[str]:
    """Return the parts that a name may be folded into, each with the separator at its end."""
    split = [""]
    for number, character in enumerate(name):
        split[-1] += character
        if character in separators and number < len(name) - 1:
            split.append("")
    return split


def fold(name: str, separators: str, width: int) -> str:
    """Return the name in lines of at most ``width`` characters, as long as possible; a longer part stays whole."""
    lines = [""]
    for part in parts(name, separators):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
