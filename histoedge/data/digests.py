"""The SHA-1 of every patch's raw RGB bytes, computed in several threads and cached for later commands."""

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
from histoedge.data.split import Patches, chunk_patches, evenly_spaced
from histoedge.edge.errors import ModelError
from histoedge.progress import Progress, silent

DIGEST_BYTES = 20
FORMAT = 1
MANY = 10_000  # patches; hashing them takes about a second
MOST_THREADS = 8  # each has a chunk of patches in memory


def cached_digests(patches: Patches, file: Path, *, name: str, places: Sequence[Path]) -> tuple[bytes, ...] | None:
    """Return the digests that ``hash_file`` stored for this file (name, size, modification time); None without them.

    Some patches are read and compared.
    """
    for place in places:
        with suppress(ModelError, OSError):
            arrays, attributes = hdf5.read_arrays(place / f"{name}.digests.h5")
            stored = arrays.get("digests", np.empty(0))
            valid = stored.dtype == np.uint8 and stored.shape == (len(patches), DIGEST_BYTES)
            if valid and attributes == _identity(file):
                digests = as_bytes(stored)
                if all(digest_of(patches[row]) == digests[row] for row in sample_rows(len(patches))):
                    return digests
    return None


def hash_file(
    patches: Patches, file: Path, *, name: str, places: Sequence[Path], progress: Progress = silent
) -> tuple[bytes, ...]:
    """Return the digests of a file's patches and store them in the first writable folder of ``places``, if any.

    Raises:
        DataError: a patch that cannot be read.
    """
    identity = _identity(file)
    digests = hash_patches(patches, what=f"hash {name}, patches", progress=progress)
    if identity == _identity(file):
        with cache_folder.writable(places, progress=progress) as place, suppress(files.WriteError, OSError):
            if place is not None:  # a full disk is no error: the next command hashes again
                hdf5.write_arrays(place / f"{name}.digests.h5", {"digests": as_array(digests)}, identity)
    return digests


def hash_patches(patches: Patches, *, what: str = "hash, patches", progress: Progress = silent) -> tuple[bytes, ...]:
    """Return the digest of each patch; a few hundred patches per CPU are in memory at a time.

    ``progress`` is called with ``what`` and the number of patches hashed.

    Raises:
        DataError: a patch that cannot be read.
    """
    hashed: list[bytes] = []
    count, threads = len(patches), min(cpus.usable(), MOST_THREADS)
    chunk = chunk_patches(patches.shape[1])
    waiting: deque[Future[list[bytes]]] = deque()
    progress(what, 0, count, "computes their SHA-1 once" if count > MANY else "")
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, chunk):
            waiting.append(pool.submit(_hash_chunk, patches, slice(start, start + chunk)))
            if len(waiting) > threads:
                hashed += waiting.popleft().result()
                progress(what, len(hashed), count)
        for future in waiting:
            hashed += future.result()
            progress(what, len(hashed), count)
    return tuple(hashed)


def _hash_chunk(patches: Patches, rows: slice) -> list[bytes]:
    return [digest_of(patch) for patch in patches[rows]]


def _identity(file: Path) -> dict[str, Any]:
    status = file.stat()
    return {"format": FORMAT, "file": file.name, "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def sample_rows(count: int) -> list[int]:
    """Return some of ``count`` rows, evenly spaced, including the first and the last."""
    return [int(row) for row in evenly_spaced(count, cache_folder.SAMPLE)]


def as_array(digests: Sequence[bytes]) -> np.ndarray:
    """Return digests as uint8 (N, 20)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def as_bytes(digests: np.ndarray) -> tuple[bytes, ...]:
    """Return the digests of ``as_array``."""
    joined = digests.tobytes()
    return tuple(joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def digest_of(patch: np.ndarray) -> bytes:
    """Return the digest of one patch, uint8 (patch_px, patch_px, 3)."""
    return hashlib.sha1(np.ascontiguousarray(patch).data).digest()
