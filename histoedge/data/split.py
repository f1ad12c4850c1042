"""A split: patches and labels, of which rows are read as they are needed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

SPLITS = ("train", "valid", "test")
CHUNK_PATCHES = 512  # 14 MB


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the indices 0 to ``count`` - 1, ascending and evenly spaced, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


class Patches(Protocol):
    """uint8 (N, 96, 96, 3) RGB pixels that can be indexed like an array; an ndarray is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 96, 96, 3)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, checked.

    ``patches`` uint8 (N, 96, 96, 3), read when indexed; ``labels`` uint8 (N,) of 0 and 1, both present; ``ids`` a
    name per patch; ``slides`` the slide each patch comes from, where known; ``size_bytes`` on disk, or in memory
    where there is no file. ``known_digests`` are the ``digests`` where they are known; where not, ``find_digests``
    finds them.
    """

    name: str
    patches: Patches
    labels: np.ndarray
    ids: Sequence[str]
    slides: Sequence[str] | None = None
    size_bytes: int = 0
    known_digests: tuple[bytes, ...] | None = None
    find_digests: Callable[[], tuple[bytes, ...]] | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.patches.shape != (count, PATCH_PX, PATCH_PX, 3):
            expected = (count, PATCH_PX, PATCH_PX, 3)
            raise DataError(f"{self.name}: patches of shape {self.patches.shape}, expected {expected}")
        if np.unique(self.labels).tolist() != [0, 1]:
            held = ", ".join(map(str, np.unique(self.labels)[:5])) or "no patch"
            raise DataError(f"{self.name}: labels hold only {held}, expected both 0 and 1: a split needs both classes")

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-1 of each patch's raw RGB bytes, as the Kaggle competition makes its ids; where not known, reads all."""
        if self.known_digests is not None:
            return self.known_digests
        if self.find_digests is not None:
            return self.find_digests()
        from histoedge.data import digests

        return digests.of(self.patches)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of labels and patches in order: the same however they are stored."""
        content = hashlib.sha256(self.labels.astype(np.uint8).tobytes())
        content.update(b"".join(self.digests))
        return content.hexdigest()

    def subset(self, rows: np.ndarray, name: str | None = None) -> "Split":
        """A view on some patches, in the order of ``rows``, int (n,): pixels are read when they are indexed.

        Digests that are known already are taken over.

        Raises:
            DataError: labels of one class only.
            IndexError: a row that is not there.
        """
        from histoedge.data.rows import Chosen

        rows = np.arange(len(self.labels))[rows]
        known = self.__dict__.get("digests", self.known_digests)  # of the property, where it was asked for
        return Split(
            self.name if name is None else name,
            Chosen(self.patches, rows),
            self.labels[rows],
            [self.ids[row] for row in rows],
            None if self.slides is None else [self.slides[row] for row in rows],
            len(rows) * PATCH_PX * PATCH_PX * 3,
            None if known is None else tuple(known[row] for row in rows),
        )


def read_rows(patches: Patches, index: Any, read: Callable[[int], np.ndarray]) -> np.ndarray:
    """What ``patches[index]`` means, by an array's own rules, where ``read(row)`` gives one patch.

    Returns:
        uint8 (96, 96, 3) for an int, else (n, 96, 96, 3) for a slice, an array of ints or a mask.
    """
    rows = np.arange(len(patches))[index]
    if rows.ndim == 0:
        return read(int(rows))
    found = np.empty((len(rows), *patches.shape[1:]), np.uint8)
    for place, row in enumerate(rows):
        found[place] = read(int(row))
    return found
