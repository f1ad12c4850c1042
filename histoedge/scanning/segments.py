"""Tiles and strips of a TIFF file, decoded one by one and kept: windows of any size are put together from them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.scanning.cache import Cache

KEPT_BYTES = 64 << 20  # neighbours need them again


class Segments:
    """The pixels of a pyramid, whose levels are ``pages`` of tifffile; it outlives their file object.

    Any number of threads may read: each opens the file anew, so that none waits for another's place in it.
    """

    def __init__(self, path: Path, pages: Sequence[Any]) -> None:
        self._path = path
        self._pages = pages
        self._places = [list(zip(page.dataoffsets, page.databytecounts, strict=True)) for page in pages]
        self._decoders = [partial(page.decode, jpegtables=page.jpegtables) for page in pages]  # they read the file
        self._kept = Cache(KEPT_BYTES)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """A window inside a level, uint8 (height, width, samples).

        Raises:
            Exception: the file is damaged; each codec raises classes of its own.
        """
        page = self._pages[level]
        high, wide = page.chunks[:2]
        down, across = -(-page.imagelength // high), -(-page.imagewidth // wide)
        planes = len(self._places[level]) // (down * across)  # 1, or one for each sample where they lie apart
        window = np.empty((height, width, page.samplesperpixel), np.uint8)
        for row in range(top // high, -(-(top + height) // high)):
            for column in range(left // wide, -(-(left + width) // wide)):
                y, x = row * high - top, column * wide - left
                place = slice(max(y, 0), y + high), slice(max(x, 0), x + wide)
                for plane in range(planes):
                    number = (plane * down + row) * across + column
                    found = self._kept.get((level, number), partial(self._decoded, level, number))
                    samples = slice(plane, plane + 1) if planes > 1 else slice(None)
                    window[*place, samples] = found[max(-y, 0) : height - y, max(-x, 0) : width - x]
        return window

    def _decoded(self, level: int, number: int) -> np.ndarray:
        """A segment, uint8 (h, w, samples); zeros where the file has none."""
        start, count = self._places[level][number]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            content = file.read(count)
        decoded, _, shape = self._decoders[level](content or None, number)
        return np.zeros(shape[1:], np.uint8) if decoded is None else np.asarray(decoded[0])
