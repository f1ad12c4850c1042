"""A folder per class: ``<class>/*.png``, or ``train/<class>/*.png`` with ``valid`` and ``test``."""

import os
from pathlib import Path

from histoedge.data import image, image_files, partition
from histoedge.data.description import Description
from histoedge.data.layouts import label_table
from histoedge.data.listing import Listing
from histoedge.edge.errors import DataError


def found(folder: Path) -> bool:
    """Return whether folders of classes are in the folder, or in one named by a split."""
    if (folder / label_table.FILE).exists():  # says more than the names of folders
        return False
    classes = _classes(folder)
    return bool(_split_folders(folder)) or (len(classes) > 1 and any(map(_has_images, classes)))


def read(folder: Path, _: Description) -> Listing:
    """List the patches by split, class and name; the id of a patch is its path in the folder.

    Raises:
        DataError: a class without images, or two folders for one split.
    """
    splits = _split_folders(folder)
    under: list[str] = []
    for classes in [_folders(folder / name) for name in splits] or [_classes(folder)]:
        if empty := [path for path in classes if not _has_images(path)]:
            raise DataError(f"{empty[0]}: no images in this class folder; add images, or remove the folder")
        under += [path.relative_to(folder).as_posix() for path in classes]
    images = image_files.listed(folder, under=under)
    parents = [name.split("/")[:-1] for name in images.names]
    official = [splits[parent[0]] for parent in parents] if splits else None
    return Listing(images, images.names, [parent[-1] for parent in parents], folder, official)


def _split_folders(folder: Path) -> dict[str, str]:
    """Return the split of each folder that is named by one and has folders in it."""
    splits: dict[str, str] = {}
    for path in _folders(folder):
        name = partition.NAMES.get(path.name.lower())
        if name is not None and _folders(path):
            if name in splits.values():
                raise DataError(f"{path}: a second folder for the {name} split; move all its images to one")
            splits[path.name] = name
    return splits


def _classes(folder: Path) -> list[Path]:
    """Return the folders of a folder without splits that are not named by a split."""
    return [path for path in _folders(folder) if path.name.lower() not in partition.NAMES]


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones and those of archives."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith((".", "__")) and entry.is_dir()]
    except OSError as cause:
        raise DataError(f"{folder}: cannot be read ({cause.strerror})") from cause
    return [folder / name for name in sorted(names)]


def _has_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(image.SUFFIXES) and not entry.name.startswith(".") for entry in entries)
