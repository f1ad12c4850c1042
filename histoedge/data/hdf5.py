"""Read and write HDF5 files; all files are treated as untrusted.

A file may refer to other files (external and soft links, external storage, virtual datasets), claim any size, or be
truncated. All of these are refused with a one-line error.
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
LARGEST_CHUNK_BYTES = 256 << 20  # HDF5 unpacks a whole chunk to read one patch
MOST_ARRAYS = 10_000
ROWS_AT = 4096  # byte offset of the rows in a file with the header of ``rows_header``
DEEPEST_GROUP = 8  # a group can contain itself
_ATTRIBUTES = "attributes"  # a JSON document in a dataset, because HDF5 attributes are limited to 64 KB
_FORMAT = "earliest"  # since 1.8, HDF5 writes the time into the header of every group
# raised by h5py 3.14 for 8,000 files with flipped bytes; ValueError also if the corruption closes the file
_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


@contextmanager
def opened(path: Path, *, error: type[HistoedgeError]) -> Iterator[h5py.File]:
    """Open the file for reading.

    Raises:
        HistoedgeError: of class ``error``: missing, a folder, truncated, or not HDF5.
    """
    file = open_file(path, error=error)
    try:
        yield file
    finally:
        with _translated(path, error):
            file.close()


def open_file(path: Path, *, error: type[HistoedgeError]) -> h5py.File:
    """Open the file for reading until the caller closes it; raises as ``opened``."""
    if not path.is_file():
        raise error(f"{path}: no such file")
    with _translated(path, error):
        return h5py.File(path, "r")


def dataset(file: h5py.File, name: str, *, where: Path, error: type[HistoedgeError]) -> h5py.Dataset:
    """Return a dataset stored completely in this file, with no chunk too large to unpack.

    Raises:
        HistoedgeError: of class ``error``: no such dataset, a link, external or virtual storage, unwritten parts,
            chunks above ``LARGEST_CHUNK_BYTES``, or a corrupt file.
    """
    with _translated(where, error):
        for depth in range(1, name.count("/") + 2):
            part = "/".join(name.split("/")[:depth])
            link = file.get(part, getlink=True)
            if link is None:
                raise error(f"{where}: no dataset {name!r}; its datasets: {_names(file)}")
            if not isinstance(link, h5py.HardLink):
                raise error(f"{where}: {part!r} is a link, which is never followed; store the data itself")
        data = file[name]
        if not isinstance(data, h5py.Dataset):
            raise error(f"{where}: {name!r} is a group, expected a dataset")
        if data.external or data.is_virtual:
            raise error(
                f"{where}: {name!r} stores its data in another file, which is never read; store the data itself"
            )
        if data.shape is None:
            raise error(f"{where}: {name!r} is empty, expected an array")
        _check_storage(data, name, where, error)
    return data


def read_dataset(data: h5py.Dataset, index: Any = (), *, where: Path, error: type[HistoedgeError]) -> np.ndarray:
    """Return the values at ``index``, by default all.

    Raises:
        HistoedgeError: of class ``error``: corrupt or truncated there.
    """
    with _translated(where, error):
        return np.asarray(data[index])


def row_offsets(data: h5py.Dataset, *, where: Path, error: type[HistoedgeError]) -> np.ndarray | None:
    """Return the byte offset of each row, int64 (N,); None if rows are not stored contiguously and uncompressed.

    They are if the dataset is contiguous, or in chunks of whole rows, without filters.

    Raises:
        HistoedgeError: of class ``error``: a row outside the file, or a corrupt file.
    """
    row_bytes = int(np.prod(data.shape[1:], dtype=object)) * data.dtype.itemsize
    with _translated(where, error):
        if data.file.id.get_create_plist().get_userblock() or data.id.get_create_plist().get_nfilters():
            return None
        if data.chunks is None:
            first = data.id.get_offset()
            offsets = None if first is None else first + row_bytes * np.arange(len(data), dtype=np.int64)
        else:
            offsets = _chunk_offsets(data, row_bytes)
    if offsets is not None and len(offsets):
        size = where.stat().st_size
        wrong = np.flatnonzero((offsets < 0) | (offsets > size - row_bytes))
        if len(wrong):
            raise error(f"{where}: row {wrong[0]} is outside the file; download or write it again")
    return offsets


def _chunk_offsets(data: h5py.Dataset, row_bytes: int) -> np.ndarray | None:
    chunk_rows = data.chunks[0]
    if data.chunks[1:] != data.shape[1:] or not hasattr(data.id, "chunk_iter"):  # h5py on HDF5 before 1.12.3
        return None
    chunks: list[tuple[int, int, int]] = []
    data.id.chunk_iter(lambda chunk: chunks.append((chunk.chunk_offset[0], chunk.byte_offset, chunk.size)))
    starts, offsets, sizes = np.array(sorted(chunks), np.int64).reshape(-1, 3).T
    expected = np.arange(0, len(data), chunk_rows)
    if not np.array_equal(starts, expected) or (sizes != chunk_rows * row_bytes).any():
        return None
    rows: np.ndarray = offsets[:, None] + row_bytes * np.arange(chunk_rows)
    return rows.reshape(-1)[: len(data)]


def rows_header(place: Path, name: str, *, shape: tuple[int, ...]) -> bytes:
    """Return the first ``ROWS_AT`` bytes of a file that contains one dataset, uint8 and contiguous.

    Any number of processes can write the rows first; the header then makes the file an HDF5 file. A temporary file of
    the full size, without data blocks, is created in the folder ``place`` and removed.

    Raises:
        OSError: a full disk, or no permission to write there.
    """
    temporary = place / f".header{files.TEMPORARY_SUFFIX}"
    try:
        with h5py.File(temporary, "w", libver=_FORMAT, alignment_threshold=ROWS_AT, alignment_interval=ROWS_AT) as file:
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            space = h5py.h5s.create_simple(shape)
            created = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, dcpl=layout)
            if created.get_offset() != ROWS_AT:
                raise RuntimeError(
                    f"HDF5 {h5py.version.hdf5_version} stores rows at byte {created.get_offset()}, expected {ROWS_AT}"
                )
        with open(temporary, "rb") as written:
            return written.read(ROWS_AT)
    finally:
        temporary.unlink(missing_ok=True)


def write_rows(path: Path, name: str, blocks: Iterable[np.ndarray], *, shape: tuple[int, ...]) -> None:
    """Write blocks of rows, uint8, as the only dataset of a file, contiguous and uncompressed."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", libver=_FORMAT) as file:
        dataset = file.create_dataset(name, shape, np.uint8, track_times=False)
        start = 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write numeric arrays by name (``/`` separates groups) and JSON attributes; the bytes depend on the content alone.

    Raises:
        TypeError: an array that is not numeric, or an attribute that is not JSON.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.kind not in "fiu":
            raise TypeError(f"{name}: dtype {np.asarray(array).dtype}, expected numbers")
    with files.replacing(path) as temporary, h5py.File(temporary, "w", libver=_FORMAT) as file:
        file[_ATTRIBUTES] = np.frombuffer(json.dumps(dict(attributes), sort_keys=True).encode(), np.uint8)
        for name in sorted(arrays):
            file.create_dataset(f"arrays/{name}", data=arrays[name], track_times=False)


def read_arrays(path: Path, *, limit_bytes: int = LARGEST_ARRAYS_BYTES) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of ``write_arrays``: arrays by name, and attributes.

    Raises:
        ModelError: missing, truncated, not written by ``write_arrays``, not numeric, or above ``limit_bytes``.
    """
    with opened(path, error=ModelError) as file:
        described = dataset(file, _ATTRIBUTES, where=path, error=ModelError)
        if described.dtype != np.uint8 or described.ndim != 1 or described.nbytes > files.LARGEST_JSON_BYTES:
            raise ModelError(f"{path}: {_ATTRIBUTES} is {described.dtype} {described.shape}; not a histoedge file")
        text = read_dataset(described, where=path, error=ModelError).tobytes()
        arrays = read_group(file, "arrays", where=path, limit_bytes=limit_bytes)
    try:
        attributes = json.loads(text)
    except ValueError as cause:
        raise ModelError(f"{path}: the attributes are not JSON ({cause})") from cause
    if not isinstance(attributes, dict):
        raise ModelError(f"{path}: the attributes are not a JSON object")
    return arrays, attributes


def read_group(
    file: h5py.File, group: str, *, where: Path, limit_bytes: int = LARGEST_ARRAYS_BYTES
) -> dict[str, np.ndarray]:
    """Return the numeric arrays below a group by their path from it; an empty dict without such a group.

    Raises:
        ModelError: a link, too many or too deep arrays, arrays that are not numeric, or above ``limit_bytes``.
    """
    names: list[str] = []
    with _translated(where, ModelError):
        if isinstance(file.get(group, getlink=True), h5py.HardLink):
            _collect(file[group], group, names, where)
    free_bytes = limit_bytes
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        data = dataset(file, name, where=where, error=ModelError)
        if data.dtype.kind not in "fiu":
            raise ModelError(f"{where}: {name}: dtype {data.dtype}, expected numbers")
        free_bytes -= int(data.nbytes)
        if free_bytes < 0:
            raise ModelError(f"{where}: arrays of more than {limit_bytes} bytes; not a file of weights")
        arrays[name.removeprefix(f"{group}/")] = read_dataset(data, where=where, error=ModelError)
    return arrays


def read_attribute(file: h5py.File, name: str, *, where: Path) -> str | None:
    """Return a text attribute of the file; None without it.

    Raises:
        ModelError: not a text, or longer than ``files.LARGEST_JSON_BYTES``.
    """
    with _translated(where, ModelError):
        if name not in file.attrs:
            return None
        if file.attrs.get_id(name).get_storage_size() > files.LARGEST_JSON_BYTES:
            raise ModelError(f"{where}: attribute {name} is too long")
        value = file.attrs[name]
        value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str) or len(value) > files.LARGEST_JSON_BYTES:
        raise ModelError(f"{where}: attribute {name} is not a text of at most {files.LARGEST_JSON_BYTES} bytes")
    return value


def _collect(group: Any, prefix: str, names: list[str], where: Path) -> None:
    if not isinstance(group, h5py.Group) or prefix.count("/") > DEEPEST_GROUP:
        raise ModelError(f"{where}: {prefix} is not a group of arrays, or too deep; not a file of weights")
    for name in sorted(group):
        place = f"{prefix}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ModelError(f"{where}: {place} is a link, which is never followed")
        if isinstance(group[name], h5py.Group):
            _collect(group[name], place, names, where)
        else:
            names.append(place)
        if len(names) > MOST_ARRAYS:
            raise ModelError(f"{where}: more than {MOST_ARRAYS} arrays; not a file of weights")


def _check_storage(data: h5py.Dataset, name: str, where: Path, error: type[HistoedgeError]) -> None:
    """Refuse unwritten parts, which HDF5 reads as zeros, and sizes beyond the stored bytes."""
    if data.chunks is None:
        stored = int(data.id.get_storage_size())
        if stored < data.nbytes:
            raise error(f"{where}: {name!r} claims {data.nbytes} bytes but stores {stored}; write it again")
        return
    chunk_bytes = int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize
    if chunk_bytes > LARGEST_CHUNK_BYTES:
        raise error(
            f"{where}: {name!r} has chunks of {chunk_bytes} bytes, expected at most {LARGEST_CHUNK_BYTES}; "
            "write smaller chunks"
        )
    expected = int(
        np.prod([-(-size // part) for size, part in zip(data.shape, data.chunks, strict=True)], dtype=object)
    )
    stored_chunks = data.id.get_num_chunks()
    if stored_chunks < expected:
        raise error(
            f"{where}: {name!r} has {stored_chunks} of {expected} chunks, the others were never written; write it again"
        )


@contextmanager
def _translated(path: Path, error: type[HistoedgeError]) -> Iterator[None]:
    """Turn any exception of h5py for a corrupt file into a one-line ``error``; wraps calls of h5py only."""
    try:
        yield
    except _FAULTS as cause:
        line = " ".join(str(cause).split()).strip("'\"")[:120]
        raise error(f"{path}: not a complete HDF5 file ({line}); download or write it again") from cause


def _names(file: h5py.File) -> str:
    return ", ".join(repr(name) for name in list(file)[:5]) or "none"
