"""The SHA-1 of every patch's raw RGB bytes, found in several threads and kept from one command to the next."""

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cpus, files
from histoedge.data import cache_folder, hdf5
from histoedge.data.split import CHUNK_PATCHES, Patches, evenly_spaced
from histoedge.edge.errors import ModelError
from histoedge.progress import Progress, silent

DIGEST_BYTES = 20
FORMAT = 1
MANY = 10_000  # patches that take a second
MOST_THREADS = 8  # each holds CHUNK_PATCHES patches


def of(patches: Patches, *, what: str = "hash, patches", progress: Progress = silent) -> tuple[bytes, ...]:
    """The digest of each patch; memory holds a few hundred patches for each CPU.

    ``progress`` counts patches under ``what``.

    Raises:
        DataError: a patch that cannot be read.
    """
    found: list[bytes] = []
    count, threads = len(patches), min(cpus.usable(), MOST_THREADS)
    waiting: deque[Future[list[bytes]]] = deque()
    progress(what, 0, count, "their SHA-1, once" if count > MANY else "")
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, CHUNK_PATCHES):
            waiting.append(pool.submit(_block, patches, start))
            if len(waiting) > threads:
                found += waiting.popleft().result()
                progress(what, len(found), count)
        for last in waiting:
            found += last.result()
            progress(what, len(found), count)
    return tuple(found)


def kept(patches: Patches, file: Path, *, name: str, places: Sequence[Path]) -> tuple[bytes, ...] | None:
    """The digests that ``find`` kept of this very file (its name, size and time of change); None where it kept none.

    Some patches are read and compared.
    """
    for place in places:
        with suppress(ModelError, OSError):
            arrays, attributes = hdf5.read_arrays(place / f"{name}.digests.h5")
            found = arrays.get("digests", np.empty(0))
            fits = found.dtype == np.uint8 and found.shape == (len(patches), DIGEST_BYTES)
            if fits and attributes == _bound(file):
                digests = as_bytes(found)
                if all(one(patches[row]) == digests[row] for row in sample(len(patches))):
                    return digests
    return None


def find(
    patches: Patches, file: Path, *, name: str, places: Sequence[Path], progress: Progress = silent
) -> tuple[bytes, ...]:
    """The digests of a file's patches, kept for ``kept`` in the first of ``places`` that can be written, if any can.

    Raises:
        DataError: a patch that cannot be read.
    """
    bound = _bound(file)
    digests = of(patches, what=f"hash {name}, patches", progress=progress)
    if bound == _bound(file):
        with cache_folder.writable(places, progress=progress) as place, suppress(files.WriteError, OSError):
            if place is not None:  # a full disk costs the next command some time and this one nothing
                hdf5.write_arrays(place / f"{name}.digests.h5", {"digests": as_array(digests)}, bound)
    return digests


def sample(count: int) -> list[int]:
    """Some rows of so many, the first and the last among them."""
    return [int(row) for row in evenly_spaced(count, cache_folder.SAMPLE)]


def as_array(digests: Sequence[bytes]) -> np.ndarray:
    """uint8 (N, 20)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def as_bytes(digests: np.ndarray) -> tuple[bytes, ...]:
    """What ``as_array`` was made from."""
    joined = digests.tobytes()
    return tuple(joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES))


def one(patch: np.ndarray) -> bytes:
    """The digest of uint8 (96, 96, 3)."""
    return hashlib.sha1(np.ascontiguousarray(patch).data).digest()


def _block(patches: Patches, start: int) -> list[bytes]:
    return [one(patch) for patch in patches[start : start + CHUNK_PATCHES]]


def _bound(file: Path) -> dict[str, Any]:
    status = file.stat()
    return {"format": FORMAT, "file": file.name, "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
