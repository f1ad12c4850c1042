"""Exchange files with a program that embeds the model: write the golden patches, read the program's logits."""

import csv
import math
import os
import re
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..golden import Golden

LARGEST_CSV_BYTES = 1 << 20
EXPECTED = "expected.csv"
LOGIT = "logit"
INDEX_COLUMNS = ("patch", "index")


def write_golden(golden: Golden, folder: Path) -> list[Path]:
    """Write the patches as binary PPM files ``00.ppm`` ..., and their logits as ``expected.csv``.

    A PPM file contains a line ``P6``, a line with width and height, a line ``255``, and then the bytes that the model
    expects: R, G, B of each pixel, row by row.

    Returns:
        The paths written, ``expected.csv`` last.

    Raises:
        DataError: the folder cannot be written.
    """
    paths = []
    lines = [f"{INDEX_COLUMNS[0]},{LOGIT}"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (patch, logit) in enumerate(zip(golden.patches, golden.logits, strict=True)):
            path = folder / f"{number:02d}.ppm"
            height, width, _ = patch.shape
            _replace(path, f"P6\n{width} {height}\n255\n".encode() + patch.tobytes())
            paths.append(path)
            lines.append(f"{path.name},{logit:.9g}")
        _replace(folder / EXPECTED, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return [*paths, folder / EXPECTED]


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_logits(path: Path, count: int) -> np.ndarray:
    """Return the logits float64 (count,) of a CSV file: one per row, in the order of the patches.

    A first line without a number is the header. With several columns, the column ``logit`` is read, or without it
    the last column; a column ``patch`` or ``index`` (``3`` or ``03.ppm``) sets the order of the rows. Columns are
    separated by commas, semicolons or tabs.

    Raises:
        DataError: missing, empty, too large, not text, a number of rows other than ``count``, or a value that is not a
            finite number.
    """
    rows = _rows(path)
    header = [cell.lower() for cell in rows[0]] if not any(map(_is_number, rows[0])) else None
    body = rows if header is None else rows[1:]
    if len(body) != count:
        raise DataError(f"{path}: {len(body)} rows of logits, expected {count}: one for each golden patch")
    column = header.index(LOGIT) if header is not None and LOGIT in header else -1
    logits = np.array([_number(path, row, column, number) for number, row in enumerate(body, start=1)])
    index_columns = [name for name in INDEX_COLUMNS if header is not None and name in header]
    if header is None or not index_columns or header.index(index_columns[0]) == column % len(header):
        return logits
    name = index_columns[0]
    indices = [_index(row, header.index(name)) for row in body]
    if sorted(indices) != list(range(count)):
        raise DataError(f"{path}: column {name} must contain 0 to {count - 1} once each; correct it or leave it out")
    ordered = np.empty_like(logits)
    ordered[indices] = logits
    return ordered


def _rows(path: Path) -> list[list[str]]:
    """Return the cells of each line that is not blank."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_CSV_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a CSV file of logits") from error
    if len(content) > LARGEST_CSV_BYTES:
        raise DataError(f"{path}: more than {LARGEST_CSV_BYTES} bytes; expected a CSV file with one logit per row")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file; expected a CSV file with one logit per row") from None
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(re.sub("[;\t]", ",", line) for line in lines)]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error}); expected one logit per row") from error
    if not rows:
        raise DataError(f"{path}: empty; expected one logit per row")
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(path: Path, row: list[str], column: int, number: int) -> float:
    try:
        value = float(row[column])
    except (ValueError, IndexError):
        text = repr(",".join(row))[:60]
        raise DataError(f"{path}: row {number} is {text}; expected a number (with a decimal point)") from None
    if not math.isfinite(value):
        raise DataError(f"{path}: the logit in row {number} is {value}; expected a finite number")
    return value


def _index(row: list[str], column: int) -> int:
    digits = re.fullmatch(r"(\d{1,6})(\.\w+)?", row[column]) if column < len(row) else None
    return int(digits[1]) if digits else -1
