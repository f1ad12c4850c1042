"""The one place that opens HDF5 files, and trusts none of them.

A file may point elsewhere (external and soft links, external storage, virtual datasets), claim any size, or be
cut short: all of that is refused here, in one line.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histoedge import files
from histoedge.edge.errors import HistoedgeError, ModelError

LARGEST_ARRAYS_BYTES = 4 << 30
LARGEST_CHUNK_BYTES = 256 << 20  # HDF5 unpacks a whole chunk to read one patch of it
MOST_ARRAYS = 10_000
ROWS_AT = 4096  # where rows begin in a file with the head of ``rows_header``
DEEPEST_GROUP = 8  # a group can hold itself
_ATTRIBUTES = "attributes"  # a JSON document in a dataset: HDF5 attributes end at 64 KB
_FORMAT = "earliest"  # from 1.8 on, HDF5 writes the time into the header of every group
# What h5py 3.14 raised for 8,000 files with flipped bytes; ValueError also for a file closed by its own corruption.
_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


@contextmanager
def opened(path: Path, *, error: type[HistoedgeError]) -> Iterator[h5py.File]:
    """The file, open for reading.

    Raises:
        HistoedgeError: of class ``error``: missing, a folder, cut short, or not HDF5.
    """
    file = open_file(path, error=error)
    try:
        yield file
    finally:
        with _whole(path, error):
            file.close()


def open_file(path: Path, *, error: type[HistoedgeError]) -> h5py.File:
    """The file, open for reading until the caller closes it; raises as ``opened``."""
    if not path.is_file():
        raise error(f"{path}: no such file")
    with _whole(path, error):
        return h5py.File(path, "r")


def dataset(file: h5py.File, name: str, *, where: Path, error: type[HistoedgeError]) -> h5py.Dataset:
    """A dataset that lies in this very file, with all its bytes written and no chunk too large to unpack.

    Raises:
        HistoedgeError: of class ``error``: no such dataset, a link to elsewhere, external or virtual storage, parts
            never written, chunks above ``LARGEST_CHUNK_BYTES``, or a corrupt file.
    """
    with _whole(where, error):
        for depth in range(1, name.count("/") + 2):
            part = "/".join(name.split("/")[:depth])
            link = file.get(part, getlink=True)
            if link is None:
                raise error(f"{where}: no dataset {name!r}; found {_names(file)}")
            if not isinstance(link, h5py.HardLink):
                raise error(f"{where}: {part!r} is a link to elsewhere, which is never followed; store the data itself")
        found = file[name]
        if not isinstance(found, h5py.Dataset):
            raise error(f"{where}: {name!r} is a group, expected a dataset")
        if found.external or found.is_virtual:
            raise error(
                f"{where}: {name!r} keeps its data in another file, which is never followed; store the data itself"
            )
        if found.shape is None:
            raise error(f"{where}: {name!r} is empty, expected an array")
        _check_storage(found, name, where, error)
    return found


def read_dataset(found: h5py.Dataset, index: Any = (), *, where: Path, error: type[HistoedgeError]) -> np.ndarray:
    """The values at ``index``, all of them by default.

    Raises:
        HistoedgeError: of class ``error``: corrupt or cut short there.
    """
    with _whole(where, error):
        return np.asarray(found[index])


def row_offsets(found: h5py.Dataset, *, where: Path, error: type[HistoedgeError]) -> np.ndarray | None:
    """The byte of the file at which each row begins, int64 (N,); None where rows do not lie there whole and plain.

    They do where the dataset is contiguous, or in chunks of whole rows, without filters.

    Raises:
        HistoedgeError: of class ``error``: a row that would lie outside the file, or a corrupt file.
    """
    row_bytes = int(np.prod(found.shape[1:], dtype=object)) * found.dtype.itemsize
    with _whole(where, error):
        if found.file.id.get_create_plist().get_userblock() or found.id.get_create_plist().get_nfilters():
            return None
        if found.chunks is None:
            first = found.id.get_offset()
            offsets = None if first is None else first + row_bytes * np.arange(len(found), dtype=np.int64)
        else:
            offsets = _chunk_offsets(found, row_bytes)
    if offsets is not None and len(offsets):
        size = where.stat().st_size
        wrong = np.flatnonzero((offsets < 0) | (offsets > size - row_bytes))
        if len(wrong):
            raise error(f"{where}: row {wrong[0]} lies outside the file; download or write it again")
    return offsets


def _chunk_offsets(found: h5py.Dataset, row_bytes: int) -> np.ndarray | None:
    together = found.chunks[0]
    if found.chunks[1:] != found.shape[1:] or not hasattr(found.id, "chunk_iter"):  # h5py on HDF5 before 1.12.3
        return None
    chunks: list[tuple[int, int, int]] = []
    found.id.chunk_iter(lambda chunk: chunks.append((chunk.chunk_offset[0], chunk.byte_offset, chunk.size)))
    starts, offsets, sizes = np.array(sorted(chunks), np.int64).reshape(-1, 3).T
    expected = np.arange(0, len(found), together)
    if not np.array_equal(starts, expected) or (sizes != together * row_bytes).any():
        return None
    rows: np.ndarray = offsets[:, None] + row_bytes * np.arange(together)
    return rows.reshape(-1)[: len(found)]


def rows_header(place: Path, name: str, *, shape: tuple[int, ...]) -> bytes:
    """The first ``ROWS_AT`` bytes of a file whose one dataset, uint8 and contiguous, is all that follows them.

    So rows can be written first, by any number of processes, and become an HDF5 file by its head at last. A file of
    that size, which holds nothing, is made in the folder ``place`` and removed.

    Raises:
        OSError: a full disk, or no right to write there.
    """
    temporary = place / f".header{files.TEMPORARY_SUFFIX}"
    try:
        with h5py.File(temporary, "w", libver=_FORMAT, alignment_threshold=ROWS_AT, alignment_interval=ROWS_AT) as file:
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            space = h5py.h5s.create_simple(shape)
            made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, dcpl=layout)
            if made.get_offset() != ROWS_AT:
                raise RuntimeError(f"HDF5 {h5py.version.hdf5_version} puts rows at {made.get_offset()}")
        with open(temporary, "rb") as written:
            return written.read(ROWS_AT)
    finally:
        temporary.unlink(missing_ok=True)


def write_rows(path: Path, name: str, blocks: Iterable[np.ndarray], *, shape: tuple[int, ...]) -> None:
    """Write blocks of rows, uint8, as the one dataset of a file, contiguous and uncompressed, block by block."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", libver=_FORMAT) as file:
        dataset = file.create_dataset(name, shape, np.uint8, track_times=False)
        start = 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write numeric arrays by name (``/`` makes groups) and JSON-able attributes; same content, same bytes.

    Raises:
        TypeError: an array that is not numeric, or an attribute that is not JSON.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.kind not in "fiu":
            raise TypeError(f"{name} is of type {np.asarray(array).dtype}, expected numbers")
    with files.replacing(path) as temporary, h5py.File(temporary, "w", libver=_FORMAT) as file:
        file[_ATTRIBUTES] = np.frombuffer(json.dumps(dict(attributes), sort_keys=True).encode(), np.uint8)
        for name in sorted(arrays):
            file.create_dataset(f"arrays/{name}", data=arrays[name], track_times=False)


def read_arrays(path: Path, *, limit_bytes: int = LARGEST_ARRAYS_BYTES) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What ``write_arrays`` wrote: arrays by name, and attributes.

    Raises:
        ModelError: missing, cut short, not written by ``write_arrays``, not numeric, or above ``limit_bytes``.
    """
    with opened(path, error=ModelError) as file:
        described = dataset(file, _ATTRIBUTES, where=path, error=ModelError)
        if described.dtype != np.uint8 or described.ndim != 1 or described.nbytes > files.LARGEST_JSON_BYTES:
            raise ModelError(f"{path}: its attributes are not ours")
        text = read_dataset(described, where=path, error=ModelError).tobytes()
        names: list[str] = []
        with _whole(path, ModelError):
            if isinstance(file.get("arrays", getlink=True), h5py.HardLink):
                _collect(file["arrays"], "arrays", names, path)
        left = limit_bytes
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            found = dataset(file, name, where=path, error=ModelError)
            if found.dtype.kind not in "fiu":
                raise ModelError(f"{path}: {name} is of type {found.dtype}, expected numbers")
            left -= int(found.nbytes)
            if left < 0:
                raise ModelError(f"{path}: more than {limit_bytes} bytes of arrays; this is not a file of ours")
            arrays[name.removeprefix("arrays/")] = read_dataset(found, where=path, error=ModelError)
    try:
        attributes = json.loads(text)
    except ValueError as cause:
        raise ModelError(f"{path}: its attributes are not JSON ({cause})") from cause
    if not isinstance(attributes, dict):
        raise ModelError(f"{path}: its attributes are not a JSON object")
    return arrays, attributes


def _collect(group: Any, prefix: str, names: list[str], where: Path) -> None:
    if not isinstance(group, h5py.Group) or prefix.count("/") > DEEPEST_GROUP:
        raise ModelError(f"{where}: {prefix} is not a group of arrays of ours")
    for name in sorted(group):
        place = f"{prefix}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ModelError(f"{where}: {place} is a link to elsewhere, which is never followed")
        if isinstance(group[name], h5py.Group):
            _collect(group[name], place, names, where)
        else:
            names.append(place)
        if len(names) > MOST_ARRAYS:
            raise ModelError(f"{where}: more than {MOST_ARRAYS} arrays; this is not a file of ours")


def _check_storage(found: h5py.Dataset, name: str, where: Path, error: type[HistoedgeError]) -> None:
    """HDF5 answers zeros for what was never written, and lets a small file claim any size: refuse both."""
    if found.chunks is None:
        stored = int(found.id.get_storage_size())
        if stored < found.nbytes:
            raise error(f"{where}: {name!r} claims {found.nbytes} bytes and holds {stored}; write it again")
        return
    chunk_bytes = int(np.prod(found.chunks, dtype=object)) * found.dtype.itemsize
    if chunk_bytes > LARGEST_CHUNK_BYTES:
        raise error(
            f"{where}: {name!r} has chunks of {chunk_bytes} bytes, at most {LARGEST_CHUNK_BYTES}; use smaller ones"
        )
    expected = int(
        np.prod([-(-size // part) for size, part in zip(found.shape, found.chunks, strict=True)], dtype=object)
    )
    there = found.id.get_num_chunks()
    if there < expected:
        raise error(
            f"{where}: {name!r} has {there} of {expected} chunks, the others were never written; write it again"
        )


@contextmanager
def _whole(path: Path, error: type[HistoedgeError]) -> Iterator[None]:
    """Around calls of h5py alone: whatever it raises for a corrupt file becomes one line of ``error``."""
    try:
        yield
    except _FAULTS as cause:
        line = " ".join(str(cause).split()).strip("'\"")[:120]
        raise error(f"{path}: not a whole HDF5 file ({line}); download or write it again") from cause


def _names(file: h5py.File) -> str:
    return ", ".join(repr(name) for name in list(file)[:5]) or "nothing"
