"""PatchCamelyon's own layout: ``camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5``, also gzipped.

Veeling et al., Rotation Equivariant CNNs for Digital Pathology, 2018.
"""

import csv
import gzip
import hashlib
import os
import shutil
import threading
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histoedge import files
from histoedge.data import PATCH_PX, Split, hdf5
from histoedge.edge.errors import DataError

LARGEST_UNPACKED_BYTES = 64 << 30


def load(folder: Path, split: str) -> Split:
    """One split, opened and checked; patches are read when they are indexed.

    Raises:
        DataError: a file missing, cut short or corrupt; a dataset of another name, shape or type; lengths that
            differ; labels other than 0 and 1, or of one class only.
    """
    stem = f"camelyonpatch_level_2_split_{split}"
    x_path, y_path = (_plain(folder, f"{stem}_{part}.h5") for part in ("x", "y"))
    patches = H5Patches(x_path)
    with hdf5.opened(y_path, error=DataError) as file:
        y = hdf5.dataset(file, "y", where=y_path, error=DataError)
        if y.dtype.kind not in "ui" or y.ndim not in (1, 4) or y.shape[1:] not in ((), (1, 1, 1)):
            raise DataError(f"{y_path}: y is {y.dtype} {y.shape}, expected unsigned integers (N, 1, 1, 1)")
        if len(y) != len(patches):
            raise DataError(f"{y_path}: {len(y)} labels for the {len(patches)} patches of {x_path.name}")
        labels = y[()].reshape(-1)
    if wrong := np.flatnonzero((labels != 0) & (labels != 1)).tolist():
        raise DataError(f"{y_path}: label {labels[wrong[0]]} at index {wrong[0]}, expected 0 or 1")
    slides = _slides(folder / f"{stem}_meta.csv", len(labels))
    size = sum(path.stat().st_size for path in (x_path, y_path))
    ids = _Numbered(split, len(labels))
    return Split(split, patches, labels.astype(np.uint8), ids, slides, size)


class _Numbered(tuple[str, ...]):
    """``train-000000``, ``train-000001`` ...: PatchCamelyon names its patches by position."""

    def __new__(cls, split: str, count: int) -> "_Numbered":
        return super().__new__(cls, (f"{split}-{index:06d}" for index in range(count)))


class H5Patches:
    """The dataset ``x`` of a PatchCamelyon file, read on demand; where it is contiguous, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = -1
        self._lock = threading.Lock()
        self._file: h5py.File | None = None
        with hdf5.opened(path, error=DataError) as file:
            x = hdf5.dataset(file, "x", where=path, error=DataError)
            expected = f"expected uint8 (N, {PATCH_PX}, {PATCH_PX}, 3)"
            if x.dtype != np.uint8:
                raise DataError(f"{path}: x is {x.dtype}, {expected}")
            if x.ndim != 4 or x.shape[1:] != (PATCH_PX, PATCH_PX, 3):
                raise DataError(f"{path}: x has shape {x.shape}, {expected}")
            self.shape: tuple[int, ...] = x.shape
            self._offset = x.id.get_offset() if x.chunks is None and x.compression is None else None
        self._mapped: np.ndarray | None = None
        if self._offset is not None:
            if self._offset + int(np.prod(self.shape)) > path.stat().st_size:
                raise DataError(f"{path}: cut short, x needs more bytes than the file has; download it again")
            self._mapped = np.memmap(path, np.uint8, "r", self._offset, self.shape)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if self._mapped is not None:
            return np.array(self._mapped[index])
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._rows(start, max(stop, start))
            index = np.arange(start, stop, step)
        if isinstance(index, int | np.integer):
            at = int(index) % len(self) if -len(self) <= index < len(self) else int(index)
            return self._rows(at, at + 1)[0]
        wanted = np.asarray(index)
        if len(wanted) == 0:
            return np.zeros((0, *self.shape[1:]), np.uint8)
        return np.stack([self._rows(int(at), int(at) + 1)[0] for at in wanted])

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"patch {start} of {len(self)}")
        with self._lock:
            if self._file is None or self._process != os.getpid():  # HDF5 handles do not survive a fork
                self._file, self._process = h5py.File(self.path, "r"), os.getpid()
            try:
                return np.asarray(self._file["x"][start:stop])
            except OSError as cause:
                raise DataError(
                    f"{self.path}: unreadable between patches {start} and {stop} ({' '.join(str(cause).split())[:80]}); "
                    "download it again"
                ) from cause


def _plain(folder: Path, name: str) -> Path:
    """The path of the HDF5 file, unpacked once into the cache where only ``name.gz`` is there."""
    path, packed = folder / name, folder / f"{name}.gz"
    if path.is_file():
        return path
    if not packed.is_file():
        raise DataError(f"{path}: no such file, nor {packed.name}; PatchCamelyon has an x and a y file per split")
    status = packed.stat()
    key = hashlib.sha256(f"{packed.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:24]
    unpacked = _cache() / f"{key}-{name}"
    if not unpacked.is_file():
        with files.replacing(unpacked) as temporary:
            _unpack(packed, temporary)
    return unpacked


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histoedge"


def _unpack(packed: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    limit = min(LARGEST_UNPACKED_BYTES, shutil.disk_usage(to.parent).free)
    written = 0
    try:
        with gzip.open(packed, "rb") as source, open(to, "wb") as target:
            while block := source.read(1 << 22):
                written += len(block)
                if written > limit:
                    raise DataError(f"{packed}: unpacks to more than {limit} bytes, more than there is room for")
                target.write(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(f"{packed}: not a whole gzip file ({cause}); download it again") from cause


def _slides(path: Path, count: int) -> list[str] | None:
    if not path.is_file():
        return None
    with open(path, newline="") as file:
        table = csv.DictReader(file)
        if "wsi" not in (table.fieldnames or ()):
            raise DataError(f"{path}: no column wsi; found {', '.join(table.fieldnames or ()) or 'nothing'}")
        slides = [row["wsi"] for row in table]
    if len(slides) != count:
        raise DataError(f"{path}: {len(slides)} rows for {count} patches")
    return slides
