"""Image files of a data set: their names, sizes and times, and their patches decoded when indexed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.data import image
from histoedge.data.split import read_rows
from histoedge.edge.errors import DataError

Key = tuple[str, int, int]  # name, size, modification time


@dataclass(frozen=True)
class Images:
    """Image files by their names in a folder (``/`` separates folders), sizes in bytes, modification times in ns."""

    folder: Path
    names: Sequence[str]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]
    form: image.Form = image.FORM

    def __len__(self) -> int:
        return len(self.names)

    def keys(self) -> list[Key]:
        """Return the keys that identify packed images."""
        return list(zip(self.names, self.sizes, self.mtimes_ns, strict=True))

    def as_form(self, form: image.Form) -> "Images":
        """Return the images with another form of their patches."""
        return replace(self, form=form)

    def take(self, rows: Sequence[int]) -> "Images":
        """Return the images of ``rows``, in that order."""
        return replace(
            self,
            names=[self.names[row] for row in rows],
            sizes=[self.sizes[row] for row in rows],
            mtimes_ns=[self.mtimes_ns[row] for row in rows],
        )


NO_IMAGES = Images(Path(), (), (), ())


def listed(folder: Path, *, suffix: str | tuple[str, ...] = image.SUFFIXES, under: Sequence[str] = ("",)) -> Images:
    """Return the images of a folder, or of the folders ``under`` it, each sorted by name.

    Hidden files do not count.

    Raises:
        DataError: a folder or a file in it cannot be read.
    """
    found: list[tuple[str, os.stat_result]] = []
    for part in under:
        prefix = f"{part}/" if part else ""
        try:
            with os.scandir(folder / part) as entries:
                names = ((entry.name, entry) for entry in entries)
                found += sorted(
                    (prefix + name, entry.stat())
                    for name, entry in names
                    if name.lower().endswith(suffix) and not name.startswith(".")
                )
        except OSError as cause:
            raise DataError(f"{cause.filename or folder}: cannot be read ({cause.strerror})") from cause
    return _images(folder, found)


def named(folder: Path, names: Iterable[str], *, table: Path) -> Images:
    """Return the images of these names; ``table`` is the file that names them.

    Raises:
        DataError: an image that is missing, cannot be read, or is outside the folder.
    """
    found: list[tuple[str, os.stat_result]] = []
    for name in names:
        if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"{table}: image {name} is outside {folder}; name images by their path in that folder")
        try:
            found.append((name, os.stat(folder / name)))
        except (OSError, ValueError) as cause:
            reason = getattr(cause, "strerror", None) or cause
            raise DataError(f"{table}: image {name} cannot be read in {folder} ({reason})") from cause
    return _images(folder, found)


def _images(folder: Path, found: list[tuple[str, os.stat_result]]) -> Images:
    return Images(
        folder,
        [name for name, _ in found],
        [stat.st_size for _, stat in found],
        [stat.st_mtime_ns for _, stat in found],
    )


class ImagePatches:
    """Image files indexed like an array; each is decoded when it is indexed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Images) -> None:
        self.images = images

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, patch_px, patch_px, 3)."""
        side = self.images.form.patch_px
        return (len(self.images), side, side, 3)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_rows(self, index, self._read)

    def _read(self, row: int) -> np.ndarray:
        path = self.images.folder / self.images.names[row]
        return image.patch_of_data(path, self.images.form, where=str(path))
