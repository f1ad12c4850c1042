"""Windows of a TIFF file, assembled from its tiles or strips, which are decoded one by one and cached."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.scanning.cache import Cache

KEPT_BYTES = 64 << 20  # neighbouring windows need the same segments


class Segments:
    """The pixels of a pyramid whose levels are tifffile ``pages``; usable after their file object is closed.

    Any number of threads may read; each read opens the file again, because threads cannot share a file position.
    """

    def __init__(self, path: Path, pages: Sequence[Any]) -> None:
        self._path = path
        self._pages = pages
        self._places = [list(zip(page.dataoffsets, page.databytecounts, strict=True)) for page in pages]
        self._decoders = [
            partial(page.decode, jpegtables=page.jpegtables) for page in pages
        ]  # built now: they read the file
        self._cache = Cache(KEPT_BYTES)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Return a window inside a level, uint8 (height, width, samples).

        Raises:
            Exception: the file is damaged; each codec raises its own classes.
        """
        page = self._pages[level]
        high, wide = page.chunks[:2]
        down, across = -(-page.imagelength // high), -(-page.imagewidth // wide)
        planes = len(self._places[level]) // (down * across)  # 1, or one per sample if samples are stored separately
        window = np.empty((height, width, page.samplesperpixel), np.uint8)
        for row in range(top // high, -(-(top + height) // high)):
            for column in range(left // wide, -(-(left + width) // wide)):
                y, x = row * high - top, column * wide - left
                place = slice(max(y, 0), y + high), slice(max(x, 0), x + wide)
                for plane in range(planes):
                    number = (plane * down + row) * across + column
                    segment = self._cache.get((level, number), partial(self._decode, level, number))
                    samples = slice(plane, plane + 1) if planes > 1 else slice(None)
                    window[*place, samples] = segment[max(-y, 0) : height - y, max(-x, 0) : width - x]
        return window

    def _decode(self, level: int, number: int) -> np.ndarray:
        """Return a segment, uint8 (h, w, samples); zeros if the file does not store it."""
        start, count = self._places[level][number]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            content = file.read(count)
        decoded, _, shape = self._decoders[level](content or None, number)
        return np.zeros(shape[1:], np.uint8) if decoded is None else np.asarray(decoded[0])
