"""PatchCamelyon's layout: ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``, also gzipped.

Veeling et al., Rotation Equivariant CNNs for Digital Pathology, 2018.
"""

import gzip
import hashlib
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from histoedge import files
from histoedge.data import cache_folder, digests, hdf5, rows, table
from histoedge.data.geometry import Geometry
from histoedge.data.split import Split, read_rows
from histoedge.edge.errors import DataError
from histoedge.edge.patches import LARGEST_PATCH_PX, PATCH_PX, SMALLEST_PATCH_PX
from histoedge.progress import Progress, silent

FILES = "camelyonpatch_level_2_split_*.h5*"
SIDES = f"{SMALLEST_PATCH_PX} to {LARGEST_PATCH_PX}"
MOST_PATCHES = 1 << 24  # PatchCamelyon has 2**18 for training
LARGEST_UNPACKED_BYTES = 64 << 30
# gzip compresses zeros 1000 : 1, stained tissue below 2 : 1, labels 10 : 1
LARGEST_RATIO = 32
SMALL_UNPACKED_BYTES = 1 << 28


def found(folder: Path) -> bool:
    """Return whether files of this layout are in the folder."""
    return any(folder.glob(FILES))


def load_pcam(
    folder: Path,
    split: str,
    *,
    geometry: Callable[[int], Geometry] = Geometry,
    cached: bool = True,
    progress: Progress = silent,
) -> Split:
    """Open and check one split; patches are read when they are indexed.

    Digests are computed on first use, which reads every patch and calls ``progress``, and stored in the cache of the
    folder unless ``cached`` is False. ``geometry`` returns the geometry of patches of a size.

    Raises:
        DataError: a missing, truncated or corrupt file; a dataset of another name, shape or type; different lengths;
            labels other than 0 and 1, or of one class only.
    """
    stem = f"camelyonpatch_level_2_split_{split}"
    x_path, y_path = (_plain(folder, f"{stem}_{part}.h5") for part in ("x", "y"))
    patches = H5Patches(x_path)
    labels = _labels(y_path)
    if len(labels) != len(patches):
        raise DataError(f"{y_path}: {len(labels)} labels for the {len(patches)} patches of {x_path.name}")
    if len(np.unique(labels)) < 2:
        values = f"only label {labels[0]}" if len(labels) else "no label"
        raise DataError(f"{y_path}: {values} in {len(labels)} patches; a split needs both classes")
    slides = _slides(folder / f"{stem}_meta.csv", len(labels))
    size = sum(path.stat().st_size for path in (x_path, y_path))
    places, name = cache_folder.cache_folders(folder) if cached else (), split
    return Split(
        split,
        patches,
        labels,
        Numbered(split, len(labels)),
        slides,
        size,
        digests.cached_digests(patches, x_path, name=name, places=places),
        lambda: digests.hash_file(patches, x_path, name=name, places=places, progress=progress),
        geometry(patches.shape[1]),
    )


def _plain(folder: Path, name: str) -> Path:
    """Return the path of the HDF5 file; if only ``name.gz`` exists, unpack it into the cache once."""
    path, packed = folder / name, folder / f"{name}.gz"
    if path.is_file():
        return path
    if not packed.is_file():
        raise DataError(
            f"{path}: neither this file nor {packed.name} exists; PatchCamelyon has an x and a y file per split"
        )
    status = packed.stat()
    place = hashlib.sha256(os.fsencode(packed.resolve())).hexdigest()[:16]
    unpacked = cache_folder.users() / f"{place}-{status.st_size:x}-{status.st_mtime_ns:x}-{name}"
    if not unpacked.is_file():
        for older in cache_folder.users().glob(f"{place}-*-{name}"):
            older.unlink(missing_ok=True)
        with files.replacing(unpacked) as temporary:
            _unpack(packed, temporary)
    return unpacked


def _unpack(packed: Path, to: Path) -> None:
    """Unpack block by block; stop at an implausible size or a full disk."""
    plausible = max(SMALL_UNPACKED_BYTES, LARGEST_RATIO * packed.stat().st_size)
    limit = min(LARGEST_UNPACKED_BYTES, plausible)
    free = shutil.disk_usage(to.parent).free
    written = 0
    try:
        with gzip.open(packed, "rb") as source, open(to, "wb") as target:
            while block := source.read(1 << 20):
                written += len(block)
                if written > limit:
                    raise DataError(f"{packed}: unpacks to more than {limit} bytes, too large for a PatchCamelyon file")
                if written > free:
                    raise DataError(
                        f"{packed}: not enough disk space in {to.parent} to unpack it; free space there, or unpack the "
                        "file yourself"
                    )
                target.write(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(f"{packed}: not a complete gzip file ({cause}); download it again") from cause


class H5Patches:
    """The dataset ``x`` of a PatchCamelyon file: uint8 (N, side, side, 3), read when indexed; threads may share it.

    Only the indexed patches are in memory. (A memory map is not faster for patches of 27 kB, counts every page read as
    memory of the process, and kills the process if the file is truncated.) Uncompressed patches are read without HDF5,
    which serves one thread at a time; compressed patches are read with HDF5.

    Raises:
        DataError: on construction: missing, corrupt, of another name, shape or type. On indexing: corrupt there, or
            truncated since.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = -1
        self._lock = threading.Lock()
        self._file: Any = None
        with hdf5.opened(path, error=DataError) as file:
            x = hdf5.dataset(file, "x", where=path, error=DataError)
            expected = f"expected uint8 (N, {PATCH_PX}, {PATCH_PX}, 3), or square patches of {SIDES} px"
            if x.dtype != np.uint8:
                raise DataError(f"{path}: x is {x.dtype}, {expected}")
            side = x.shape[1] if x.ndim == 4 else 0
            if x.ndim != 4 or x.shape[1:] != (side, side, 3) or not SMALLEST_PATCH_PX <= side <= LARGEST_PATCH_PX:
                raise DataError(f"{path}: x has shape {x.shape}, {expected}")
            if len(x) > MOST_PATCHES:
                raise DataError(f"{path}: x claims {len(x)} patches, expected at most {MOST_PATCHES}")
            self.shape: tuple[int, ...] = x.shape
            offsets = hdf5.row_offsets(x, where=path, error=DataError) if rows.POSSIBLE else None
        self._uncompressed = None if offsets is None else rows.FileRows(path, offsets, self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if self._uncompressed is not None:
            return self._uncompressed[index]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._rows(start, max(stop, start))
        return read_rows(self, index, lambda row: self._rows(row, row + 1)[0])

    def _rows(self, start: int, stop: int) -> np.ndarray:
        with self._lock:
            if self._file is None or self._process != os.getpid():  # HDF5 handles do not survive a fork
                self._file, self._process = hdf5.open_file(self.path, error=DataError), os.getpid()
                self._x = hdf5.dataset(self._file, "x", where=self.path, error=DataError)
            try:
                return hdf5.read_dataset(self._x, slice(start, stop), where=self.path, error=DataError)
            except DataError as cause:
                if stop - start == 1:
                    raise DataError(f"{cause} [patch {start}]") from cause
        for row in range(start, stop):  # read one by one to name the unreadable one
            self._rows(row, row + 1)
        raise DataError(f"{self.path}: unreadable between patches {start} and {stop}; download it again")


def _labels(path: Path) -> np.ndarray:
    with hdf5.opened(path, error=DataError) as file:
        y = hdf5.dataset(file, "y", where=path, error=DataError)
        expected = "expected unsigned integers (N, 1, 1, 1)"
        if y.dtype.kind not in "ui":
            raise DataError(f"{path}: y is {y.dtype}, {expected}")
        if y.ndim not in (1, 4) or y.shape[1:] not in ((), (1, 1, 1)):
            raise DataError(f"{path}: y has shape {y.shape}, {expected}")
        if len(y) > MOST_PATCHES:
            raise DataError(f"{path}: y claims {len(y)} labels, expected at most {MOST_PATCHES}")
        labels = hdf5.read_dataset(y, where=path, error=DataError).reshape(-1)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise DataError(f"{path}: label {labels[wrong[0]]} at index {wrong[0]}, expected 0 or 1")
    return labels.astype(np.uint8)


def _slides(path: Path, count: int) -> list[str] | None:
    if not path.is_file():
        return None
    slides = [row["wsi"] for row in table.read_table(path, ("wsi",))]
    if len(slides) != count:
        raise DataError(f"{path}: {len(slides)} rows for {count} patches; expected one row per patch, in order")
    return slides


class Numbered(Sequence[str]):
    """The ids ``train-000000``, ``train-000001`` ...: PatchCamelyon identifies patches by position."""

    def __init__(self, split: str, count: int) -> None:
        self._split, self._numbers = split, range(count)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [f"{self._split}-{number:06d}" for number in self._numbers[index]]
        return f"{self._split}-{self._numbers[index]:06d}"
