"""What a layout finds in a folder: patches, labels, splits and slides, in one order, before any pixel is decoded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge.data import image
from histoedge.data.image_files import Images
from histoedge.edge.errors import DataError


@dataclass(frozen=True)
class Container:
    """Many patches in one file.

    ``part`` names them in the file, ``count`` is their number, ``side_px`` the side of the first. ``blocks(form)``
    yields the patches in this form, uint8 (n, patch_px, patch_px, 3), in order.
    """

    file: Path
    part: str
    count: int
    side_px: int
    blocks: Callable[[image.Form], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Listing:
    """The patches of a data set, as image files or in containers, and what is known about each.

    ``labels`` are the labels as text. ``splits`` are names out of ``SPLITS``, None without official splits; ``slides``
    are None if unknown. ``where`` is the file or folder with the labels, ``notes`` are for people who check the data.
    """

    pixels: Images | tuple[Container, ...]
    ids: Sequence[str]
    labels: Sequence[str]
    where: Path
    splits: Sequence[str] | None = None
    slides: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    def side_px(self) -> int:
        """Return the side of the first patch in px.

        Raises:
            DataError: no patches, or the first image cannot be read or is not square.
        """
        if not self.ids:
            raise DataError(f"{self.where}: no patches; a data set needs both classes")
        if not isinstance(self.pixels, Images):
            return self.pixels[0].side_px
        first = self.pixels.folder / self.pixels.names[0]
        return image.side_px(first, where=str(first))
