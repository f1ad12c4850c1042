"""Patches stored contiguously in a file, read without a lock, and views of selected patches."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histoedge.edge.errors import DataError

if TYPE_CHECKING:
    from histoedge.data.split import Patches

POSSIBLE = hasattr(os, "preadv")  # not on Windows


class FileRows:
    """Rows of equal size at given offsets of a file: uint8 (N, ...), indexed like an array.

    Any number of threads may read at the same time. Rows are read when they are indexed; adjacent rows are read with
    one system call.

    Raises:
        DataError: on indexing: the file ends before a row, or cannot be read there; the message names the row.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, offsets: np.ndarray, row_shape: Sequence[int]) -> None:
        """Open the file; ``offsets`` int64 (N,) are the byte offsets of the rows."""
        self.path = path
        self.shape: tuple[int, ...] = (len(offsets), *row_shape)
        self._offsets = offsets
        self._row_bytes = int(np.prod(row_shape))
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as cause:
            raise DataError(f"{path}: cannot be opened ({cause.strerror})") from cause
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        offsets = np.asarray(self._offsets[index])
        pixels = np.empty((*offsets.shape, *self.shape[1:]), np.uint8)
        flat, buffer, size = offsets.reshape(-1), pixels.reshape(-1).data, self._row_bytes
        breaks = (np.flatnonzero(flat[1:] != flat[:-1] + size) + 1).tolist()
        for first, last in zip([0, *breaks], [*breaks, len(flat)], strict=True):
            done = first * size
            while done < last * size:
                row = done // size
                position = int(flat[row]) + done - row * size
                try:
                    count = os.preadv(self._descriptor, [buffer[done : last * size]], position)
                except OSError as cause:
                    raise self._unreadable(index, row, cause.strerror or str(cause)) from cause
                if count == 0:
                    raise self._unreadable(index, row, "the file ends before it")
                done += count
        return pixels

    def _unreadable(self, index: Any, place: int, reason: str) -> DataError:
        row = np.arange(len(self))[index].reshape(-1)[place]
        return DataError(
            f"{self.path}: patch {row} cannot be read ({reason}); restore the file and run the same command again"
        )


class PatchView:
    """Selected patches in a given order, indexed like an array and read when indexed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, patches: "Patches", rows: np.ndarray) -> None:
        """Select ``rows``, int (n,), of ``patches``."""
        self.patches: Patches = patches.patches if isinstance(patches, PatchView) else patches
        self.rows: np.ndarray = patches.rows[rows] if isinstance(patches, PatchView) else rows
        self.shape: tuple[int, ...] = (len(rows), *patches.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.patches[self.rows[index]]


class Joined:
    """Several arrays of patches of one size, one after the other, indexed like one array."""

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: "Sequence[Patches]") -> None:
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        rows = np.atleast_1d(chosen)
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            pixels[mine] = self.parts[number][rows[mine] - (self._ends[number] - len(self.parts[number]))]
        return pixels if chosen.ndim else np.asarray(pixels[0])
