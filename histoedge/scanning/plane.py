"""A slide resampled to one resolution; a pixel has the same value in every window that contains it."""

import math
from functools import partial

import numpy as np

from histoedge.edge.errors import DataError
from histoedge.scanning.cache import Cache
from histoedge.scanning.slide import WHITE, Slide

TILE_PX = 512
KEPT_BYTES = 64 << 20  # cached tiles: a strip of fields and the row before it
LARGEST_READ_PX = 2048  # side of the window of a level read for one tile
SAME_SCALE = 0.02  # a network trained with shifts, blur and rotation is insensitive to 2 % of scale
LARGEST_ENLARGEMENT = 1.3  # a coarser slide lacks the detail that the network uses


def of_model(slide: Slide, um_per_px: float, stated: float | None) -> "Plane":
    """Return the slide at the model's ``um_per_px``; ``stated`` um per px of level 0 overrides the slide's metadata.

    Raises:
        DataError: the slide's resolution is unknown, or over 30 % coarser than the model's.
    """
    slide_um_per_px = stated or slide.um_per_px
    if slide_um_per_px is None:
        raise DataError(f"{slide.path}: no resolution in its metadata; give --um-per-px, the um per px of level 0")
    if slide_um_per_px > um_per_px * LARGEST_ENLARGEMENT:
        remedy = "give --um-per-px if the metadata is wrong" if stated is None else "correct --um-per-px if it is wrong"
        raise DataError(
            f"{slide.path}: {slide_um_per_px:.4g} um per px, too coarse: the model was trained at "
            f"{um_per_px:.4g} um per px; scan the slide at a finer resolution, or {remedy}"
        )
    return Plane(slide, um_per_px=um_per_px, slide_um_per_px=slide_um_per_px)


class Plane:
    """A slide at ``um_per_px``, with the same origin; one pixel of the plane is ``scale`` pixels of level 0.

    The plane reads the coarsest level that is fine enough and resamples it, unless the resolutions agree within 2 %:
    then the level's pixels are used unchanged and ``um_per_px`` is the level's resolution. Resampling works on tiles at
    fixed places from which windows are assembled, so a pixel is the same through every window; the last tiles are
    cached. Any number of threads may read. Another process builds the same plane from ``resolutions``, the two
    arguments um_per_px and slide_um_per_px.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        um_per_px: float,
        slide_um_per_px: float,
        kept_bytes: int = KEPT_BYTES,
        same: float = SAME_SCALE,
    ) -> None:
        self.slide = slide
        self.resolutions = um_per_px, slide_um_per_px
        self.scale = um_per_px / slide_um_per_px
        finer = [level for level, (*_, downsample) in enumerate(slide.levels) if downsample <= self.scale * (1 + same)]
        self.level = finer[-1] if finer else 0
        width, height, downsample = slide.levels[self.level]
        self._ratio = self.scale / downsample
        if abs(self._ratio - 1) <= same:
            self._ratio, self.scale = 1.0, downsample
        self.um_per_px = slide_um_per_px * self.scale
        self.width, self.height = int(width / self._ratio), int(height / self._ratio)
        self._tile_px = max(1, min(TILE_PX, int(LARGEST_READ_PX / self._ratio)))
        self._tiles = Cache(kept_bytes)

    def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Return a window, uint8 (height, width, 3); white beyond the slide.

        Raises:
            DataError: the slide is damaged.
        """
        window = np.full((height, width, 3), WHITE, np.uint8)
        side = self._tile_px
        for row in range(max(top, 0) // side, -(-min(top + height, self.height) // side)):
            for column in range(max(left, 0) // side, -(-min(left + width, self.width) // side)):
                tile = self._tiles.get((row, column), partial(self._read_tile, row, column))
                y, x = row * side - top, column * side - left
                inside = tile[max(-y, 0) : height - y, max(-x, 0) : width - x]
                window[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
        return window

    def _read_tile(self, row: int, column: int) -> np.ndarray:
        left, top = column * self._tile_px, row * self._tile_px
        width, height = min(self._tile_px, self.width - left), min(self._tile_px, self.height - top)
        if self._ratio == 1:
            return self.slide.read(self.level, left, top, width, height)
        from PIL import Image

        across, down, _ = self.slide.levels[self.level]
        margin = math.ceil(2 * max(self._ratio, 1)) + 1  # larger than the reach of the filters
        x0, y0 = (max(0, math.floor(corner * self._ratio) - margin) for corner in (left, top))
        x1 = min(across, math.ceil((left + width) * self._ratio) + margin)
        y1 = min(down, math.ceil((top + height) * self._ratio) + margin)
        source = Image.fromarray(np.ascontiguousarray(self.slide.read(self.level, x0, y0, x1 - x0, y1 - y0)))
        box = (
            left * self._ratio - x0,
            top * self._ratio - y0,
            min((left + width) * self._ratio - x0, x1 - x0),
            min((top + height) * self._ratio - y0, y1 - y0),
        )
        method = Image.Resampling.HAMMING if self._ratio > 1 else Image.Resampling.BICUBIC
        return np.asarray(source.resize((width, height), method, box))
