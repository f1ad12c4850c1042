"""Tables that fit the terminal: in little room names are folded, and the least important figures left out."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 1
FOLDERS, WORDS, ALL_WORDS = "/ ", "/ -", "/ -_"
"""Characters after which names may be folded, the better places first."""


@dataclass(frozen=True)
class Column:
    """A heading and what each row says below it.

    ``short`` says it in less room, such as a value without its interval, below ``short_name``. ``fold_after``: the
    characters after which names may go on in another line; empty for what is never folded. ``spare``: the order in
    which columns are left out where there is no room, 1 the first; None for those that are always there. ``styles``:
    rich's, one for each cell, or none at all.
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
        """Of the widest cell, characters."""
        return max(map(len, (self.name, *self.cells)))

    @property
    def least(self) -> int:
        """The width that its longest word needs."""
        texts = (self.name, *self.cells)
        return max(len(part.rstrip()) for text in texts for part in parts(text, self.fold_after))

    def text(self, number: int) -> Text:
        """The cell of that row."""
        return Text(self.cells[number], style=self.styles[number] if self.styles else "")

    def shortened(self) -> "Column":
        """This one in less room."""
        if self.short is None:
            return self
        return dataclasses.replace(self, name=self.short_name or self.name, cells=self.short, short=None)

    def folded(self, width: int) -> "Column":
        """This one with cells of several lines, none longer than ``width`` where the words allow it."""
        name, *cells = (fold(text, self.fold_after, width) for text in (self.name, *self.cells))
        return dataclasses.replace(self, name=name, cells=tuple(cells))


class FittedTable:
    """Columns that choose their form by the width that they are printed in; a line below says what was left out."""

    def __init__(self, title: str, columns: Sequence[Column], styles: Sequence[str] = ()) -> None:
        """The same number of cells in every column; ``styles`` one for each row, or none at all."""
        self._title, self._columns, self._styles = title, columns, styles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """For rich: a table of the columns that fit."""
        chosen, missing = fit(self._columns, options.max_width)
        yield self._table(chosen)
        if missing:
            yield Text(f"not shown in {options.max_width} columns: {', '.join(missing)}", style="dim")

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
    """The columns as they fit into ``width`` characters, in the form that says most, and the names of those left out.

    Forms are tried in this order: everything; without the spare columns, one by one; names folded at folders, then at
    hyphens; figures shortened, from the first column on; names folded at every word. Where even that is too wide, rich
    folds what it must.
    """
    spare = sorted((one.spare, number) for number, one in enumerate(columns) if one.spare is not None)
    for count in range(len(spare) + 1):
        out = [number for _, number in spare[:count]]
        kept = [one for number, one in enumerate(columns) if number not in out]
        if _total([one.width for one in kept]) <= width:
            break
    missing = [columns[number].name for number in sorted(out)]
    for form in _forms(kept):
        least = [one.least if one.fold_after else one.width for one in form]
        if _total(least) <= width:
            return _filled(form, width), missing
    return _filled(form, width), missing


def _forms(columns: Sequence[Column]) -> Iterator[list[Column]]:
    yield [_foldable_at(one, FOLDERS) for one in columns]
    form = [_foldable_at(one, WORDS) for one in columns]
    yield list(form)
    for number, one in enumerate(columns):
        if one.short is not None:
            form[number] = one.shortened()
            yield list(form)
    yield [_foldable_at(one, ALL_WORDS) for one in form]


def _foldable_at(column: Column, separators: str) -> Column:
    if not column.fold_after:
        return column
    return dataclasses.replace(column, fold_after=separators)


def _filled(form: Sequence[Column], width: int) -> list[Column]:
    """Names folded into the room that the figures leave, first those that can give most of theirs."""
    widths = [one.width for one in form]
    able = [number for number, one in enumerate(form) if one.fold_after]
    while able and _total(widths) > width:
        widest = max(able, key=lambda number: widths[number] - form[number].least)
        if widths[widest] <= form[widest].least:
            break
        widths[widest] -= 1
    return [one.folded(wide) if one.fold_after else one for one, wide in zip(form, widths, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def parts(name: str, separators: str) -> list[str]:
    """What a name may be folded into: each part with the separator that ends it."""
    found = [""]
    for number, character in enumerate(name):
        found[-1] += character
        if character in separators and number < len(name) - 1:
            found.append("")
    return found


def fold(name: str, separators: str, width: int) -> str:
    """The name in lines of at most ``width`` characters, each as long as it can be; a longer part stays whole."""
    lines = [""]
    for part in parts(name, separators):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
