"""Camelyon17 of WILDS: ``metadata.csv`` and ``patches/patient_*_node_*/*.png`` from five hospitals.

Splits as in WILDS' ``Camelyon17Dataset``, split scheme ``official`` (github.com/p-lambda/wilds,
wilds/datasets/camelyon17_dataset.py; Koh et al. 2021, WILDS: A Benchmark of in-the-Wild Distribution Shifts): test is
hospital 2, valid is hospital 1, train is split 0 of the other hospitals. Split 1 of those is WILDS' validation in the
distribution of the training; it has the slides of train and is not used.
"""

from pathlib import Path

from histoedge.data import image_files, table
from histoedge.data.description import Description
from histoedge.data.listing import Listing
from histoedge.edge.errors import DataError

FILE, PATCHES = "metadata.csv", "patches"
VALID_CENTRE, TEST_CENTRE = "1", "2"
TRAIN, VALID_INSIDE = "0", "1"
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")


def found(folder: Path) -> bool:
    """Return whether the table and the folder of patches are in the folder."""
    return (folder / FILE).is_file() and (folder / PATCHES).is_dir()


def read(folder: Path, _: Description) -> Listing:
    """List the patches in the order of the table; slides and hospitals are WILDS' numbers.

    Raises:
        DataError: a missing column, a label other than 0 and 1, an unknown split, or a missing image.
    """
    file = folder / FILE
    names, labels, splits, slides = [], [], [], []
    left_out = 0
    for number, row in enumerate(table.rows_of(file, COLUMNS), start=2):
        if row["tumor"] not in ("0", "1"):
            raise DataError(f"{file}: tumor {row['tumor']!r} in line {number}, expected 0 or 1")
        split = _split(row["center"], row["split"])
        if split is None:
            raise DataError(f"{file}: split {row['split']!r} in line {number}, expected {TRAIN} or {VALID_INSIDE}")
        if not split:
            left_out += 1
            continue
        place = f"patient_{row['patient']}_node_{row['node']}"
        names.append(f"{PATCHES}/{place}/patch_{place}_x_{row['x_coord']}_y_{row['y_coord']}.png")
        labels.append(row["tumor"])
        splits.append(split)
        slides.append(row["slide"])
    if len(set(names)) < len(names):
        raise DataError(f"{file}: {len(names) - len(set(names))} images occur twice; copy the file again")
    images = image_files.named(folder, names, table=file)
    ids = [name.rpartition("/")[2].removesuffix(".png") for name in names]
    note = f"{file}: {left_out} patches of the validation inside the training hospitals are not used"
    return Listing(images, ids, labels, file, splits, slides, (note,) if left_out else ())


def _split(centre: str, split: str) -> str | None:
    """Return the split of a patch; empty if it is not used, None if the split is unknown."""
    if centre in (VALID_CENTRE, TEST_CENTRE):
        return "valid" if centre == VALID_CENTRE else "test"
    return {TRAIN: "train", VALID_INSIDE: ""}.get(split)
