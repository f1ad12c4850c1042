"""A split of a data set: labels in memory, patches that are read when they are indexed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from histoedge.data.geometry import PATCHCAMELYON, Geometry
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

SPLITS = ("train", "valid", "test")
CHUNK_PATCHES = 512  # 14 MB with 96 px


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the indices 0 to ``count`` - 1, ascending and evenly spaced, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def chunk_patches(patch_px: int) -> int:
    """Return how many patches of this size are about as large as ``CHUNK_PATCHES`` of 96 px."""
    return max(1, min(CHUNK_PATCHES, CHUNK_PATCHES * PATCH_PX**2 // patch_px**2))


class Patches(Protocol):
    """uint8 (N, patch_px, patch_px, 3) RGB pixels with the indexing of an array, for example an ndarray."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, patch_px, patch_px, 3)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One validated part of a data set.

    ``patches`` uint8 (N, patch_px, patch_px, 3), read when indexed; ``labels`` uint8 (N,) of 0 and 1, both present;
    ``ids`` one name per patch; ``slides`` the slide of each patch, None if unknown; ``size_bytes`` on disk, or in
    memory without a file. ``stored_digests`` are the ``digests`` if they are available; otherwise ``compute_digests``
    returns them. ``geometry`` says what pixels and labels mean; its ``patch_px`` is the side of the patches.
    """

    name: str
    patches: Patches
    labels: np.ndarray
    ids: Sequence[str]
    slides: Sequence[str] | None = None
    size_bytes: int = 0
    stored_digests: tuple[bytes, ...] | None = None
    compute_digests: Callable[[], tuple[bytes, ...]] | None = None
    geometry: Geometry = PATCHCAMELYON

    def __post_init__(self) -> None:
        count, side = len(self.labels), self.geometry.patch_px
        if self.patches.shape != (count, side, side, 3):
            expected = (count, side, side, 3)
            raise DataError(f"{self.name}: patches have shape {self.patches.shape}, expected {expected}")
        if np.unique(self.labels).tolist() != [0, 1]:
            values = ", ".join(map(str, np.unique(self.labels)[:5])) or "none"
            raise DataError(f"{self.name}: label values are {values}; a split needs both 0 and 1 and no other value")

    @property
    def patch_px(self) -> int:
        """The side of a patch in px."""
        return int(self.patches.shape[1])

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-1 of each patch's raw RGB bytes, like the ids of the Kaggle competition; may read all patches."""
        if self.stored_digests is not None:
            return self.stored_digests
        if self.compute_digests is not None:
            return self.compute_digests()
        from histoedge.data import digests

        return digests.hash_patches(self.patches)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of labels and patches in order, hexadecimal, independent of the storage format."""
        content = hashlib.sha256(self.labels.astype(np.uint8).tobytes())
        content.update(b"".join(self.digests))
        return content.hexdigest()

    def subset(self, rows: np.ndarray, name: str | None = None) -> "Split":
        """Return a view of some patches, in the order of ``rows``, int (n,); pixels are read when they are indexed.

        Digests that are available already are copied.

        Raises:
            DataError: labels of one class only.
            IndexError: a row beyond the split.
        """
        from histoedge.data.rows import PatchView

        rows = np.arange(len(self.labels))[rows]
        digests = self.__dict__.get("digests", self.stored_digests)  # the cached property, without computing it
        return Split(
            self.name if name is None else name,
            PatchView(self.patches, rows),
            self.labels[rows],
            [self.ids[row] for row in rows],
            None if self.slides is None else [self.slides[row] for row in rows],
            len(rows) * self.patch_px * self.patch_px * 3,
            None if digests is None else tuple(digests[row] for row in rows),
            geometry=self.geometry,
        )


def read_rows(patches: Patches, index: Any, read: Callable[[int], np.ndarray]) -> np.ndarray:
    """Evaluate ``patches[index]`` by the rules of an array, where ``read(row)`` returns one patch.

    Returns:
        uint8 (patch_px, patch_px, 3) for an int, else (n, patch_px, patch_px, 3): for a slice, an array of ints or a
        mask.
    """
    rows = np.arange(len(patches))[index]
    if rows.ndim == 0:
        return read(int(rows))
    pixels = np.empty((len(rows), *patches.shape[1:]), np.uint8)
    for place, row in enumerate(rows):
        pixels[place] = read(int(row))
    return pixels
