"""Parquet files as on the Hugging Face hub: a column with the bytes of each image, and a column of labels.

Files are named by their split (``train-00000-of-00002.parquet``), in the folder or in ``data/``.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cpus
from histoedge.data import image, partition, pcam
from histoedge.data.description import Description
from histoedge.data.listing import Container, Listing
from histoedge.edge.errors import DataError

COLUMNS = {"image": "image", "label": "label", "slide": "slide"}
SPLIT = re.compile(rf"({'|'.join(partition.NAMES)})(?=[-_.])", re.IGNORECASE)
ROWS = 64  # images in memory at a time


def found(folder: Path) -> bool:
    """Return whether a parquet file is in the folder or in its folder ``data``."""
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    for place in (folder, folder / "data"):
        if files := sorted(path for path in place.glob("*.parquet") if not path.name.startswith(".")):
            return files
    return []


def read(folder: Path, description: Description) -> Listing:
    """List the patches in the order of the files' names.

    Raises:
        DataError: pyarrow is not installed, a truncated file, a missing column or one of another type, or names of
            files with and without a split.
    """
    if unknown := [role for role in description.columns if role not in COLUMNS]:
        raise DataError(f"{description.file}: columns has {unknown[0]}; expected some of {', '.join(COLUMNS)}")
    columns = {**COLUMNS, **description.columns}
    files = _files(folder)
    parts = [SPLIT.match(file.name) for file in files]
    if any(parts) and None in parts:
        raise DataError(f"{files[parts.index(None)]}: no split in its name, unlike the other files; expected train-...")
    containers, ids, labels, splits, slides = [], [], [], [], []
    for file, part in zip(files, parts, strict=True):
        with _opened(file) as table:
            container, names = _container(file, table, columns), table.schema_arrow.names
            if not container.count:
                continue
            containers.append(container)
            labels += _texts(file, table, columns["label"], _class_names(table, columns["label"]))
            if columns["slide"] in names or "slide" in description.columns:
                slides += _texts(file, table, columns["slide"], None)
        if part is not None:
            splits += [partition.NAMES[part[1].lower()]] * container.count
        ids += [f"{file.stem}-{row:06d}" for row in range(container.count)]
    if slides and len(slides) < len(ids):
        raise DataError(
            f"{folder}: a column {columns['slide']} in some of the parquet files only; expected all or none"
        )
    return Listing(tuple(containers), ids, labels, files[0].parent, splits or None, slides or None)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Yield the file as pyarrow's ``ParquetFile``.

    Raises:
        DataError: pyarrow is missing, or the file is truncated or corrupt.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as cause:
        raise DataError(f"{file}: parquet files need pyarrow: pip install 'histoedge[parquet]'") from cause
    try:
        with parquet.ParquetFile(file) as table:
            yield table
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as cause:
        reason = " ".join(str(cause).split())[:80]
        raise DataError(f"{file}: not a complete parquet file ({reason}); download it again") from cause


def _container(file: Path, table: Any, columns: dict[str, str]) -> Container:
    """Check the columns and sizes of a file."""
    import pyarrow

    names, count = table.schema_arrow.names, table.metadata.num_rows
    for column in (columns["image"], columns["label"]):
        if column not in names:
            shown = ", ".join(names)[:80]
            raise DataError(
                f"{file}: no column {column}; its columns: {shown}; name it in DATA/data.toml: [columns] image = ..."
            )
    kind = table.schema_arrow.field(columns["image"]).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)):
        raise DataError(f"{file}: {columns['image']} is {kind}, expected the bytes of image files")
    if count > pcam.MOST_PATCHES:
        raise DataError(f"{file}: claims {count} patches, expected at most {pcam.MOST_PATCHES}")
    unpacked = sum(table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups))
    if unpacked > max(pcam.SMALL_UNPACKED_BYTES, pcam.LARGEST_RATIO * file.stat().st_size):
        raise DataError(f"{file}: unpacks to {unpacked} bytes, too many for images; download it again")
    side = 0
    if count:
        first = next(_images(file, table, columns["image"], rows=1))[0]
        side = image.side_px(first, where=f"{file}: row 0")
    return Container(file, columns["image"], count, side, partial(_blocks, file, columns["image"]))


def _images(file: Path, table: Any, column: str, *, rows: int) -> Iterator[list[bytes]]:
    """Yield the bytes of the images, at most ``rows`` at a time."""
    start = 0
    for batch in table.iter_batches(batch_size=rows, columns=[column]):
        values = batch.column(0).to_pylist()
        contents: list[bytes] = []
        for row, value in enumerate(values, start=start):
            content = value.get("bytes") if isinstance(value, dict) else value
            if not content:
                raise DataError(f"{file}: row {row} has no bytes of an image; images stored elsewhere are not read")
            contents.append(content)
        yield contents
        start += len(values)


def _blocks(file: Path, column: str, form: image.Form) -> Iterator[np.ndarray]:
    start = 0
    with _opened(file) as table, ThreadPoolExecutor(cpus.usable()) as pool:
        for contents in _images(file, table, column, rows=ROWS):
            where = [f"{file}: row {start + row}" for row in range(len(contents))]
            pixels = pool.map(lambda content, place: image.patch_of_data(content, form, where=place), contents, where)
            yield np.stack(list(pixels))
            start += len(contents)


def _class_names(table: Any, column: str) -> list[str] | None:
    """Return the names of the labels 0, 1 and so on that the hub's library stores with a file, if any."""
    stored = (table.schema_arrow.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(stored)["info"]["features"][column]["names"] if stored else None
    except (ValueError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _texts(file: Path, table: Any, column: str, names: list[str] | None) -> list[str]:
    """Return a column of whole numbers or text as text; numbers become ``names`` if there are some."""
    if column not in table.schema_arrow.names:
        raise DataError(f"{file}: no column {column}; its columns: {', '.join(table.schema_arrow.names)[:80]}")
    values = table.read(columns=[column]).column(0).to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, int | str) or value == "":
            raise DataError(f"{file}: {column} of row {row} is {value!r}, expected a whole number or text")
        if names and not isinstance(value, str) and not 0 <= value < len(names):
            raise DataError(f"{file}: {column} of row {row} is {value}, expected 0 to {len(names) - 1}")
    if names:
        return [value if isinstance(value, str) else names[value] for value in values]
    return [str(int(value)) if isinstance(value, int) else value for value in values]
