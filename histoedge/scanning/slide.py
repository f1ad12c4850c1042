"""An open slide: 8-bit RGB at several resolutions, the same interface for every file format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
DICOM = ".dcm"
SUFFIXES = (".svs", ".ndpi", ".tif", ".tiff", ".scn", ".mrxs", ".bif", ".vms", ".svslide", DICOM, *PICTURES)
"""The suffixes of slides in a folder; a DICOM slide is identified by one of its files."""

WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An open slide.

    ``levels`` are (width, height, downsample), level 0 (the finest) first; ``um_per_px`` is the resolution of level 0,
    None if the file does not contain it. ``read(level, left, top, width, height)`` returns uint8 (height, width, 3) at
    coordinates of that level, of a window inside the level; any number of threads may call it. It raises ``DataError``
    if the file is damaged.
    """

    path: Path
    um_per_px: float | None
    levels: tuple[tuple[int, int, float], ...]
    read: Callable[[int, int, int, int, int], np.ndarray]

    @property
    def width_px(self) -> int:
        """Width of level 0."""
        return self.levels[0][0]

    @property
    def height_px(self) -> int:
        """Height of level 0."""
        return self.levels[0][1]


def name_of(path: Path) -> str:
    """Return the slide's name: its file name; of a DICOM slide, whose files have numbers as names, its folder's."""
    return path.resolve().parent.name if path.suffix.lower() == DICOM else path.name
