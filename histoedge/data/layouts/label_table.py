"""A CSV file with the path and label of each image, and where known its split and slide."""

import posixpath
from pathlib import Path

from histoedge.data import image_files, partition, table
from histoedge.data.description import Description
from histoedge.data.layouts import kaggle, wilds
from histoedge.data.listing import Listing
from histoedge.edge.errors import DataError

FILE = "labels.csv"
OTHERS = (kaggle.LABELS, *kaggle.SLIDES)  # tables of other layouts
COLUMNS = {
    "path": ("path", "image", "file", "filename", "file_name"),
    "label": ("label",),
    "split": ("split",),
    "slide": ("slide", "wsi"),
}
"""Names of each column, in lower case; the first that the file has is read."""


def found(folder: Path) -> bool:
    """Return whether ``labels.csv`` is in the folder, or one CSV file only."""
    return _file(folder) is not None


def _file(folder: Path) -> Path | None:
    if (folder / FILE).exists():
        return folder / FILE
    tables = [path for path in folder.glob("*.csv") if not path.name.startswith(".")]
    if len(tables) != 1 or tables[0].name in OTHERS or tables[0].name.endswith("_meta.csv") or wilds.found(folder):
        return None
    return tables[0]


def read(folder: Path, description: Description) -> Listing:
    """List the patches in the order of the file; the id of a patch is its path in the folder.

    Raises:
        DataError: no column of paths or labels, a path that occurs twice, is missing or outside the folder, an empty
            label or slide, or a split that is not train, valid or test.
    """
    file = _file(folder)
    if file is None:
        raise DataError(f"{folder}: neither {FILE} nor a single CSV file; name the file with the labels {FILE}")
    columns = _columns(file, description)
    path, label, split, slide = (columns.get(role) for role in COLUMNS)
    assert path is not None
    assert label is not None
    lines: dict[str, int] = {}
    labels, splits, slides = [], [], []
    for number, row in enumerate(table.rows_of(file, list(columns.values())), start=2):
        for name in columns.values():
            if not row[name]:
                raise DataError(f"{file}: line {number} has an empty {name}")
        image = posixpath.normpath(row[path])
        if image in lines:
            raise DataError(f"{file}: {image} is in line {lines[image]} and in line {number}; keep one of them")
        lines[image] = number
        labels.append(row[label])
        if split is not None:
            if (official := partition.NAMES.get(row[split].lower())) is None:
                raise DataError(f"{file}: split {row[split]!r} in line {number}, expected train, valid or test")
            splits.append(official)
        if slide is not None:
            slides.append(row[slide])
    images = image_files.named(folder, lines, table=file)
    return Listing(images, images.names, labels, file, splits if split else None, slides if slide else None)


def _columns(file: Path, description: Description) -> dict[str, str]:
    """Return the name of the column of each role that the file has."""
    if unknown := [role for role in description.columns if role not in COLUMNS]:
        raise DataError(f"{description.file}: columns has {unknown[0]}; expected some of {', '.join(COLUMNS)}")
    header = table.header_of(file)
    shown = ", ".join(header)[:80] or "none"
    by_name = {name.lower(): name for name in reversed(header)}
    columns = {role: by_name[name] for role, names in COLUMNS.items() for name in reversed(names) if name in by_name}
    for role, name in description.columns.items():
        if name not in header:
            raise DataError(f"{description.file}: {file.name} has no column {name}; its columns: {shown}")
        columns[role] = name
    if missing := [role for role in ("path", "label") if role not in columns]:
        raise DataError(
            f"{file}: no column {' or '.join(COLUMNS[missing[0]])}; its columns: {shown}; name it in "
            f"{description.file}: [columns] {missing[0]} = ..."
        )
    return columns
