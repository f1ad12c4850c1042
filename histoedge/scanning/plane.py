"""A slide seen at one resolution: pixels that do not depend on which window they are read through."""

import math
from functools import partial

import numpy as np

from histoedge.edge.errors import DataError
from histoedge.scanning.cache import Cache
from histoedge.scanning.slide import WHITE, Slide

TILE_PX = 512
KEPT_BYTES = 64 << 20  # of tiles: a strip of fields and the row before it
LARGEST_READ_PX = 2048  # of a level, for one tile
SAME = 0.02  # a network that was trained with shifts, focus and orientation does not see 2 % of scale
LARGEST_ENLARGEMENT = 1.3  # a slide that is coarser lacks what the network looks at


class Plane:
    """A slide at ``um_per_px``, with its origin; ``scale`` level-0 pixels are one of its own.

    It reads the coarsest level that is fine enough, and resamples that unless it agrees within 2 %: then pixels are
    as scanned, and ``um_per_px`` is the level's own. Resampling works on tiles at fixed places, and windows are made
    of them, so a pixel is the same through every window; the last tiles are kept. Any number of threads may read.
    ``told`` are the two resolutions it was made with: with them another process sees the same plane.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        um_per_px: float,
        slide_um_per_px: float,
        kept_bytes: int = KEPT_BYTES,
        same: float = SAME,
    ) -> None:
        self.slide = slide
        self.told = um_per_px, slide_um_per_px
        self.scale = um_per_px / slide_um_per_px
        finer = [at for at, (_, _, by) in enumerate(slide.levels) if by <= self.scale * (1 + same)]
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
        """A window, uint8 (height, width, 3); white beyond the slide."""
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
        margin = math.ceil(2 * max(self._ratio, 1)) + 1  # more than the filters reach
        x0, y0 = (max(0, math.floor(at * self._ratio) - margin) for at in (left, top))
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


def of_model(slide: Slide, um_per_px: float, stated: float | None) -> Plane:
    """The slide as a model of that resolution wants it; ``stated`` micrometres per pixel stand before the file's own.

    Raises:
        DataError: nobody tells the slide's resolution, or it is over 30 % coarser than the model's.
    """
    told = stated or slide.um_per_px
    if told is None:
        raise DataError(f"{slide.path}: does not tell its um per px; give --um-per-px, that of its finest level")
    if told > um_per_px * LARGEST_ENLARGEMENT:
        raise DataError(
            f"{slide.path}: {told:.4g} um per px, the model was trained at {um_per_px:.4g}: too coarse to enlarge; "
            "scan it finer, or give --um-per-px if that figure is wrong"
        )
    return Plane(slide, um_per_px=um_per_px, slide_um_per_px=told)
