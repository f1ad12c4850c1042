"""The layout of the Kaggle competition "Histopathologic Cancer Detection": ``train/*.tif`` and ``train_labels.csv``.

The competition has no official split. Images may be TIFF, PNG or JPEG; an id is the name of an image without suffix.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from histoedge.data import image, image_files, table
from histoedge.data.description import Description
from histoedge.data.listing import Listing
from histoedge.edge.errors import DataError

LABELS = "train_labels.csv"
SLIDES = ("patch_id_wsi_full.csv", "patch_id_wsi.csv")


def found(folder: Path) -> bool:
    """Return whether the table or an image of the competition is in the folder."""
    if (folder / LABELS).exists():
        return True
    return unlabelled(folder / "train") > 0 and not any(folder.glob("*.csv"))


def read(folder: Path, _: Description) -> Listing:
    """List the patches in the order of their ids.

    Raises:
        DataError: a row without image or the reverse, two images of one id, a label other than 0 and 1.
    """
    on_disk = image_files.listed(folder / "train") if (folder / "train").is_dir() else image_files.NO_IMAGES
    rows_by_id = {name.rpartition(".")[0]: row for row, name in enumerate(on_disk.names)}
    if len(rows_by_id) < len(on_disk):
        twice = next(name for row, name in enumerate(on_disk.names) if rows_by_id[name.rpartition(".")[0]] != row)
        raise DataError(f"{folder / 'train' / twice}: another image has the same id; remove one of them")
    labels, slides = _table(folder, rows_by_id, on_disk.names)
    ids = sorted(labels)
    return Listing(
        on_disk.take([rows_by_id[name] for name in ids]),
        ids,
        [labels[name] for name in ids],
        folder / LABELS,
        slides=None if slides is None else [slides[name] for name in ids],
    )


def unlabelled(folder: Path) -> int:
    """Return the number of images in a folder, such as ``test`` of the competition."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.lower().endswith(image.SUFFIXES) for entry in entries)
    except OSError:
        return 0


def _table(folder: Path, on_disk: dict[str, int], names: Sequence[str]) -> tuple[dict[str, str], dict[str, str] | None]:
    """Return label and, if known, slide of every id, after checking that ids and images match.

    Raises:
        DataError: see ``read``.
    """
    path = folder / LABELS
    if not path.is_file():
        raise DataError(f"{path}: no such file; the competition's folder has train/*.tif and {LABELS}")
    rows = table.read_table(path, ("id", "label"))
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DataError(f"{path}: label {row['label']!r} in line {number}, expected 0 or 1")
        if row["id"] in labels:
            raise DataError(f"{path}: duplicate id {row['id']} in line {number}")
        labels[row["id"]] = row["label"]
    if missing := sorted(labels.keys() - on_disk.keys()):
        suffix = Path(names[0]).suffix if names else ".tif"
        raise DataError(f"{path}: no image train/{missing[0]}{suffix} for its id ({len(missing)} such ids)")
    if extra := sorted(on_disk.keys() - labels.keys()):
        first = folder / "train" / names[on_disk[extra[0]]]
        raise DataError(f"{first}: no row in {LABELS} ({len(extra)} such images)")
    if rows and "wsi" in rows[0]:
        return labels, {row["id"]: row["wsi"] for row in table.read_table(path, ("id", "wsi"))}
    for name in SLIDES:
        if (folder / name).is_file():
            slides = {row["id"]: row["wsi"] for row in table.read_table(folder / name, ("id", "wsi"))}
            if missing := sorted(labels.keys() - slides.keys()):
                raise DataError(f"{folder / name}: no slide for id {missing[0]} ({len(missing)} such ids)")
            return labels, slides
    return labels, None
