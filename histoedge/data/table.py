"""Read and check a CSV table with a header."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from histoedge.edge.errors import DataError

LARGEST_FILE_BYTES = 1 << 28  # the competition's table of 220,025 patches is 9 MB


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows, each with at least these columns; values are str without surrounding blanks.

    Raises:
        DataError: missing, unreadable, too large, a missing column, or a truncated row; the message names the line.
    """
    return list(rows_of(path, columns))


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of ``read_table`` one by one; raises as it."""
    with _opened(path) as (table, header):
        if missing := [name for name in columns if name not in header]:
            raise DataError(f"{path}: no column {missing[0]}; its columns: {', '.join(header)[:80] or 'none'}")
        for values in table:
            if not values:  # empty line
                continue
            row = dict(zip(header, map(str.strip, values), strict=False))
            if lost := [name for name in columns if name not in row]:
                raise DataError(f"{path}: line {table.line_num} has no {lost[0]}; the file may be truncated")
            yield row


def header_of(path: Path) -> list[str]:
    """Return the names of the columns; raises as ``read_table``."""
    with _opened(path) as (_, header):
        return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """Yield a reader after the header, and the header; a byte order mark is skipped.

    Semicolons or tabs separate the columns if the header has them and no comma.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, expected a table of at most {LARGEST_FILE_BYTES}")
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
            file.seek(0)
            table = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(table, [])]
            if twice := [name for name in header if name and header.count(name) > 1]:
                raise DataError(f"{path}: two columns are named {twice[0]}; rename or remove one of them")
            yield table, header
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise DataError(f"{path}: not a readable CSV table ({cause})") from cause
