"""Golden patches out, logits in: what passes between this package and a program that embeds the model."""

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
PLACE = ("patch", "index")


def write_golden(golden: Golden, folder: Path) -> list[Path]:
    """Write the patches as binary PPM files ``00.ppm`` ..., and ``expected.csv`` with their logits.

    PPM holds a line ``P6``, width and height, 255, and then the very bytes that the model wants: R, G, B of each pixel,
    row by row.

    Raises:
        DataError: the folder cannot be written.
    """
    written = []
    lines = [f"{PLACE[0]},{LOGIT}"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (patch, logit) in enumerate(zip(golden.patches, golden.logits, strict=True)):
            path = folder / f"{number:02d}.ppm"
            height, width, _ = patch.shape
            _replace(path, f"P6\n{width} {height}\n255\n".encode() + patch.tobytes())
            written.append(path)
            lines.append(f"{path.name},{logit:.9g}")
        _replace(folder / EXPECTED, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    return [*written, folder / EXPECTED]


def _replace(path: Path, content: bytes) -> None:
    """Write beside the place, then rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_logits(path: Path, count: int) -> np.ndarray:
    """The logits float64 (count,) in a CSV file: one per row, in the order of the patches.

    A first line without a number is the header. Of several columns the one called ``logit`` counts, else the last; a
    column called ``patch`` or ``index`` (``3`` or ``03.ppm``) puts the rows in order. Columns are parted by commas,
    semicolons or tabs.

    Raises:
        DataError: missing, empty, too large, no text, another number of rows than ``count``, or a value that is no
            finite number.
    """
    rows = _rows(path)
    header = [cell.lower() for cell in rows[0]] if not any(map(_is_number, rows[0])) else None
    body = rows if header is None else rows[1:]
    if len(body) != count:
        raise DataError(f"{path}: {len(body)} rows of logits, expected {count}: one for each golden patch")
    column = header.index(LOGIT) if header is not None and LOGIT in header else -1
    logits = np.array([_number(path, row, column, number) for number, row in enumerate(body, start=1)])
    named = [name for name in PLACE if header is not None and name in header]
    if header is None or not named or header.index(named[0]) == column % len(header):
        return logits
    places = [_place(row, header.index(named[0])) for row in body]
    if sorted(places) != list(range(count)):
        raise DataError(f"{path}: column {named[0]} must hold 0 to {count - 1} once each; correct it or leave it out")
    ordered = np.empty_like(logits)
    ordered[places] = logits
    return ordered


def _rows(path: Path) -> list[list[str]]:
    """The lines that hold anything, cut into their cells."""
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
        found = repr(",".join(row))[:60]
        raise DataError(f"{path}: row {number} is {found}; expected a number (with a decimal point)") from None
    if not math.isfinite(value):
        raise DataError(f"{path}: the logit in row {number} is {value}; expected a finite number")
    return value


def _place(row: list[str], column: int) -> int:
    digits = re.fullmatch(r"(\d{1,6})(\.\w+)?", row[column]) if column < len(row) else None
    return int(digits[1]) if digits else -1
