"""Read and check a CSV table with a header."""

import csv
from collections.abc import Sequence
from pathlib import Path

from histoedge.edge.errors import DataError

LARGEST_FILE_BYTES = 1 << 28  # the competition's table of 220,025 patches is 9 MB


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows, each with at least these columns; values are str without surrounding blanks.

    Raises:
        DataError: missing, unreadable, too large, a missing column, or a truncated row; the message names the line.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, expected a table of at most {LARGEST_FILE_BYTES}")
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            header = next(table, [])
            if missing := [name for name in columns if name not in header]:
                raise DataError(f"{path}: no column {missing[0]}; its columns: {', '.join(header)[:80] or 'none'}")
            rows = []
            for values in table:
                if not values:  # empty line
                    continue
                row = dict(zip(header, map(str.strip, values), strict=False))
                if lost := [name for name in columns if name not in row]:
                    raise DataError(f"{path}: line {table.line_num} has no {lost[0]}; the file may be truncated")
                rows.append(row)
            return rows
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise DataError(f"{path}: not a readable CSV table ({cause})") from cause
