"""Unpack containers of patches once into the cache, one HDF5 file each; a killed unpacking continues at its file."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from histoedge.data import cache_folder, digests, hdf5, image, pack
from histoedge.data.listing import Container
from histoedge.data.pcam import H5Patches
from histoedge.data.rows import Joined
from histoedge.data.split import Patches
from histoedge.edge.errors import DataError
from histoedge.progress import Progress, silent

KEY = 16  # hexadecimal digits


def open_containers(
    containers: Sequence[Container], form: image.Form, places: Sequence[Path], *, progress: Progress = silent
) -> pack.Pack:
    """Return the patches of all containers in order, and their digests.

    They are read from the first of ``places`` that has them, and unpacked into the first writable one, without any
    into a temporary file.

    Raises:
        DataError: a container that is truncated, or a patch that cannot be decoded; unpacked containers are kept.
        WriteError: not enough disk space.
    """
    parts: list[Patches] = []
    all_digests: list[bytes] = []
    for container in containers:
        patches, found = _open(container, form, places, progress)
        parts.append(patches)
        all_digests += found
    return pack.Pack(parts[0] if len(parts) == 1 else Joined(parts), tuple(all_digests))


def _open(
    container: Container, form: image.Form, places: Sequence[Path], progress: Progress
) -> tuple[Patches, tuple[bytes, ...]]:
    name, older = _name(container, form)
    for candidate in places:
        if (stored := _stored(container, form, candidate, name)) is not None:
            return stored
    with cache_folder.writable(places, progress=progress) as place:
        if place is None:
            return _temporary(container, form, progress)
        if (stored := _stored(container, form, place, name)) is not None:  # by another process in the meantime
            return stored
        for path in place.glob(older):
            path.unlink(missing_ok=True)
        pack.check_room(place, container.count, form)
        _write(container, form, place / f"{name}.h5", progress)
    patches = H5Patches(place / f"{name}.h5")
    return patches, digests.hash_file(patches, patches.path, name=name, places=[place], progress=progress)


def _stored(container: Container, form: image.Form, place: Path, name: str) -> tuple[Patches, tuple[bytes, ...]] | None:
    """Return the patches of an earlier unpacking and their digests; None if they are missing, damaged or unhashed."""
    with suppress(DataError, OSError):
        patches = H5Patches(place / f"{name}.h5")
        if patches.shape == (container.count, form.patch_px, form.patch_px, 3):
            hashed = digests.cached_digests(patches, patches.path, name=name, places=[place])
            return None if hashed is None else (patches, hashed)
    return None


def _temporary(container: Container, form: image.Form, progress: Progress) -> tuple[Patches, tuple[bytes, ...]]:
    """Unpack into a file that is removed at once; its open descriptor keeps the pixels until they are not needed."""
    folder = Path(tempfile.mkdtemp(prefix="histoedge-"))
    try:
        pack.check_room(folder, container.count, form)
        _write(container, form, folder / "x.h5", progress)
        patches = H5Patches(folder / "x.h5")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return patches, digests.hash_patches(patches, progress=progress)


def _name(container: Container, form: image.Form) -> tuple[str, str]:
    """Return the name of the unpacked file, by file, part, size, time and form, and the pattern of older ones."""
    status = container.file.stat()
    source = _key([container.file.name, container.part])
    state = _key([status.st_size, status.st_mtime_ns, asdict(form)])
    return f"{source}-{state}", f"{source}-*"


def _key(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:KEY]


def _write(container: Container, form: image.Form, file: Path, progress: Progress) -> None:
    what = f"unpack {container.file.name}{f' {container.part}' if container.part else ''}, patches"

    def counted() -> Iterator[np.ndarray]:
        done = 0
        progress(what, 0, container.count, f"once, into {file.parent}")
        for block in container.blocks(form):
            done += len(block)
            if done > container.count:
                break
            yield block
            progress(what, done, container.count)
        if done != container.count:
            raise DataError(f"{container.file}: not the {container.count} patches it claims; copy it again")

    hdf5.write_rows(file, "x", counted(), shape=(container.count, form.patch_px, form.patch_px, 3))
