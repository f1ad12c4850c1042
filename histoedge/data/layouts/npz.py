"""NumPy's ``.npz``: one file with ``x_train``, ``y_train`` and so on, or a file per split with ``patches``, ``labels``.

The names of MedMNIST (``train_images``, ``train_labels``) are read too. Nothing is unpickled; sizes are checked with
the headers before memory is allocated.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from histoedge.data import image, partition, pcam
from histoedge.data.description import Description
from histoedge.data.listing import Container, Listing
from histoedge.data.split import chunk_patches
from histoedge.edge.errors import DataError
from histoedge.edge.golden import NPZ_COMPRESSIONS

PATCHES, LABELS = ("patches", "images", "x"), ("labels", "y")
MAGIC = b"\x93NUMPY\x01\x00"
HEADER = re.compile(
    rb"\{'descr': '([|<>=][a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}(?:, \d{1,12}){0,7},?)?)\), \} *\n"
)
"""The header that NumPy writes before an array. NumPy's own reader evaluates this text as Python, which is not safe for
forged files."""
MOST_ARRAYS = 1000
LARGEST_LABELS_BYTES = 1 << 28
# raised by zipfile and numpy for archives with flipped bytes
_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Array(NamedTuple):
    """An array in an archive: its file, its name there, and what its header says."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def found(folder: Path) -> bool:
    """Return whether an ``.npz`` file is in the folder."""
    return any(not path.name.startswith(".") for path in folder.glob("*.npz"))


def read(folder: Path, _: Description) -> Listing:
    """List the patches of all arrays, in the order of their files and names.

    Raises:
        DataError: no pair of arrays with patches and labels, an array of another kind, shape or order, or a
            truncated file.
    """
    files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
    containers, ids, labels, splits = [], [], [], []
    for file in files:
        split = partition.NAMES.get(file.stem.lower())
        if split is None and len(files) > 1:
            raise DataError(f"{file}: one of {len(files)} .npz files, expected train.npz, valid.npz or test.npz")
        for part, patches, truth in _pairs(file, _headers(file), split):
            containers.append(_container(patches))
            labels += _labels(truth, patches)
            splits += [part] * patches.shape[0]
            ids += [f"{part or file.stem}-{row:06d}" for row in range(patches.shape[0])]
    official = None if None in splits else [name for name in splits if name is not None]
    return Listing(tuple(containers), ids, labels, files[0] if len(files) == 1 else folder, official)


def _pairs(file: Path, arrays: dict[str, _Array], split: str | None) -> list[tuple[str | None, _Array, _Array]]:
    """Return split, patches and labels of each pair of arrays; names do not depend on case.

    Raises:
        DataError: patches without labels or the reverse, or two arrays for the same.
    """
    by_name = {name.lower(): array for name, array in arrays.items()}
    names = list(dict.fromkeys(partition.NAMES.values())) if split is None else []
    found: list[tuple[str | None, list[_Array], list[_Array]]]
    found = [(part, _of_split(by_name, PATCHES, part), _of_split(by_name, LABELS, part)) for part in names]
    if not any(patches or labels for _, patches, labels in found):
        first, second = ([by_name[name] for name in kinds if name in by_name] for kinds in (PATCHES, LABELS))
        found = [(split, first, second)]
    pairs: list[tuple[str | None, _Array, _Array]] = []
    for part, patches, labels in found:
        if len(patches) == len(labels) == 1:
            pairs.append((part, patches[0], labels[0]))
        elif patches or labels:
            shown = ", ".join(array.name for array in patches + labels)
            raise DataError(f"{file}: {shown}: expected one array of patches and one of labels for {part or 'them'}")
    if not pairs:
        shown = ", ".join(arrays)[:80] or "none"
        raise DataError(f"{file}: no patches and labels, expected x_train and y_train; its arrays: {shown}")
    return pairs


def _of_split(by_name: dict[str, _Array], kinds: tuple[str, ...], part: str) -> list[_Array]:
    """Return the arrays of a split, such as ``x_valid``, ``val_images`` and so on for patches of valid."""
    names = [name for name, split in partition.NAMES.items() if split == part]
    written = [text for kind in kinds for name in names for text in (f"{kind}_{name}", f"{name}_{kind}")]
    return [by_name[text] for text in written if text in by_name]


@contextmanager
def _translated(file: Path, name: str = "") -> Iterator[None]:
    try:
        yield
    except _FAULTS as cause:
        reason = " ".join(str(cause).split())[:80]
        raise DataError(f"{file}: {f'{name} ' if name else ''}cannot be read ({reason}); copy it again") from cause


@contextmanager
def _member(file: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any], int]]:
    """Yield an array's stream behind its header, its shape, order and type, and the bytes behind the header."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > max(pcam.SMALL_UNPACKED_BYTES, pcam.LARGEST_RATIO * info.compress_size):
            raise DataError(f"{file}: {name} unpacks to {info.file_size} bytes, too many for patches")
        if info.compress_type not in NPZ_COMPRESSIONS:
            raise DataError(f"{file}: {name} has compression type {info.compress_type}, expected stored or deflated")
        with archive.open(info) as stream:
            start = stream.read(len(MAGIC) + 2)
            length = int.from_bytes(start[len(MAGIC) :], "little")
            header = HEADER.fullmatch(stream.read(length)) if start.startswith(MAGIC) else None
            if header is None:
                raise DataError(f"{file}: {name} is not an array of one kind of values in NumPy's format")
            shape = tuple(int(side) for side in re.findall(rb"\d+", header[3]))
            yield stream, shape, header[2] == b"True", np.dtype(header[1].decode()), info.file_size - stream.tell()


def _headers(file: Path) -> dict[str, _Array]:
    """Return the arrays of an archive by name, after checking each header."""
    with _translated(file):
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if len(names) > MOST_ARRAYS:
            raise DataError(f"{file}: {len(names)} arrays, expected at most {MOST_ARRAYS}")
        arrays = {}
        for name in names:
            with _member(file, name) as (_, shape, fortran, dtype, size):
                if dtype.hasobject:
                    raise DataError(f"{file}: {name} has Python objects, which are never loaded; store numbers or text")
                if fortran and len(shape) > 1:
                    raise DataError(f"{file}: {name} is in Fortran order; store numpy.ascontiguousarray of it")
                if size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
                    raise DataError(f"{file}: {name} claims shape {shape} of {dtype} but has {size} bytes")
                arrays[name] = _Array(file, name, shape, dtype)
    return arrays


def _container(array: _Array) -> Container:
    shape = array.shape
    if array.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        expected = "expected uint8 (N, side, side, 3), RGB"
        raise DataError(f"{array.file}: {array.name} is {array.dtype} {shape}, {expected}")
    if not 0 < shape[0] <= pcam.MOST_PATCHES:
        raise DataError(f"{array.file}: {array.name} has {shape[0]} patches, expected 1 to {pcam.MOST_PATCHES}")
    if not 0 < shape[1] <= image.LARGEST_RESAMPLED_PX:
        expected = f"expected at most {image.LARGEST_RESAMPLED_PX}"
        raise DataError(f"{array.file}: {array.name} has patches of {shape[1]} px, {expected}")
    return Container(array.file, array.name, shape[0], shape[1], partial(_blocks, array))


def _blocks(array: _Array, form: image.Form) -> Iterator[np.ndarray]:
    count, side = array.shape[:2]
    if side != form.patch_px and not form.resample:
        raise DataError(
            f"{array.file}: {array.name} has patches of {side} px, expected {form.patch_px}; "
            "resample = true in DATA/data.toml resamples them"
        )
    chunk = chunk_patches(side)
    with _translated(array.file, array.name), _member(array.file, array.name) as (stream, *_):
        for start in range(0, count, chunk):
            rows = min(chunk, count - start)
            content = stream.read(rows * side * side * 3)
            if len(content) < rows * side * side * 3:
                raise DataError(f"{array.file}: {array.name} ends before patch {start + rows}; copy it again")
            pixels = np.frombuffer(content, np.uint8).reshape(rows, side, side, 3)
            yield (
                pixels if side == form.patch_px else np.stack([image.resampled(each, form.patch_px) for each in pixels])
            )


def _labels(array: _Array, patches: _Array) -> list[str]:
    """Return the labels as text."""
    count = patches.shape[0]
    if array.shape not in ((count,), (count, 1)):
        expected = f"expected ({count},), one label per patch of {patches.name}"
        raise DataError(f"{array.file}: {array.name} has shape {array.shape}, {expected}")
    if array.dtype.kind not in "iubU" or count * array.dtype.itemsize > LARGEST_LABELS_BYTES:
        raise DataError(f"{array.file}: {array.name} is {array.dtype}, expected whole numbers or text")
    with _translated(array.file, array.name), _member(array.file, array.name) as (stream, *_):
        content = stream.read(count * array.dtype.itemsize)
        values = np.frombuffer(content, array.dtype)
    values = values.astype(np.uint8) if array.dtype.kind == "b" else values
    return [str(value) for value in values.tolist()]
