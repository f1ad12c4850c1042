"""The one place that opens HDF5 files, and trusts none of them.

A file may point elsewhere (external and soft links, external storage, virtual datasets), claim any size, or be
cut short: all of that is refused here, in one line.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histoedge import files
from histoedge.edge.errors import HistoedgeError, ModelError

LARGEST_ARRAYS_BYTES = 4 << 30
_ATTRIBUTES = "attributes"  # a JSON document in a dataset: HDF5 attributes end at 64 KB


@contextmanager
def opened(path: Path, *, error: type[HistoedgeError]) -> Iterator[h5py.File]:
    """The file, open for reading; every OSError of HDF5 inside the block becomes one line of ``error``."""
    if not path.is_file():
        raise error(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as cause:
        raise error(f"{path}: not a whole HDF5 file ({_short(cause)}); download or write it again") from cause


def dataset(file: h5py.File, name: str, *, where: Path, error: type[HistoedgeError]) -> h5py.Dataset:
    """A dataset that lies in this very file.

    Raises:
        HistoedgeError: of class ``error``: no such dataset, a link to elsewhere, external or virtual storage.
    """
    for depth in range(1, name.count("/") + 2):
        part = "/".join(name.split("/")[:depth])
        link = file.get(part, getlink=True)
        if link is None:
            raise error(f"{where}: no dataset {name!r}; found {', '.join(sorted(file)) or 'nothing'}")
        if not isinstance(link, h5py.HardLink):
            raise error(f"{where}: {part!r} is a link to elsewhere, which is never followed; store the data itself")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise error(f"{where}: {name!r} is a group, expected a dataset")
    if found.external or found.is_virtual:
        raise error(f"{where}: {name!r} keeps its data in another file, which is never followed; store the data itself")
    return found


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write numeric arrays by name (``/`` makes groups) and JSON-able attributes; same content, same bytes."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        file[_ATTRIBUTES] = np.frombuffer(json.dumps(dict(attributes), sort_keys=True).encode(), np.uint8)
        for name in sorted(arrays):
            file.create_dataset(f"arrays/{name}", data=arrays[name], track_times=False)


def read_arrays(
    path: Path, *, limit_bytes: int = LARGEST_ARRAYS_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What ``write_arrays`` wrote: arrays by name, and attributes.

    Raises:
        ModelError: missing, cut short, not written by ``write_arrays``, not numeric, or above ``limit_bytes``.
    """
    with opened(path, error=ModelError) as file:
        names: list[str] = []
        described = dataset(file, _ATTRIBUTES, where=path, error=ModelError)
        if not isinstance(file.get("arrays", getlink=True), h5py.HardLink):
            raise ModelError(f"{path}: holds no arrays of ours")
        _collect(file["arrays"], "", names, path)
        left = limit_bytes
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            found = dataset(file, f"arrays/{name}", where=path, error=ModelError)
            if found.dtype.kind not in "fiu":
                raise ModelError(f"{path}: {name} is of type {found.dtype}, expected numbers")
            left -= int(found.nbytes)
            if left < 0:
                raise ModelError(f"{path}: more than {limit_bytes} bytes of arrays; this is not a file of ours")
            arrays[name] = found[()]
        if described.dtype != np.uint8 or described.ndim != 1 or described.nbytes > files.LARGEST_JSON_BYTES:
            raise ModelError(f"{path}: its attributes are not ours")
        try:
            attributes = json.loads(described[()].tobytes())
        except ValueError as cause:
            raise ModelError(f"{path}: its attributes are not JSON ({cause})") from cause
    if not isinstance(attributes, dict):
        raise ModelError(f"{path}: its attributes are not a JSON object")
    return arrays, attributes


def _collect(group: h5py.Group, prefix: str, names: list[str], where: Path) -> None:
    for name in sorted(group):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ModelError(f"{where}: {prefix}{name} is a link to elsewhere, which is never followed")
        if isinstance(group[name], h5py.Group):
            _collect(group[name], f"{prefix}{name}/", names, where)
        else:
            names.append(f"{prefix}{name}")


def _short(cause: OSError) -> str:
    return " ".join(str(cause).split())[:120]
