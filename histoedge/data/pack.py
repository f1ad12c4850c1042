"""Many small image files as one file of pixels, made once: later commands open a few images to compare, no more.

A cache folder holds ``pack.h5``, an HDF5 file with the pixels, and ``index.h5``, which says where in it the pixels of
each image are, with the image's size, time of change and SHA-1. Rows are only ever added to a pack: who reads it is
not disturbed, and an image that is new or changed costs itself. While a pack grows, ``journal`` lists what was added;
a packing that was killed goes on from there.
"""

import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histoedge import cpus
from histoedge.data import cache_folder, decoder, digests, hdf5, image, pcam
from histoedge.data.decoder import PATCH_BYTES
from histoedge.data.rows import Chosen, FileRows
from histoedge.data.split import Patches
from histoedge.edge.errors import DataError, ModelError
from histoedge.edge.patches import PATCH_PX
from histoedge.files import WriteError
from histoedge.progress import Progress, silent

FORMAT = 1
PACK, INDEX, JOURNAL = "pack.h5", "index.h5", "journal"
FLUSH_S = 0.5
INDEX_BYTES = 512  # an image's share of index and journal, generously


@dataclass(frozen=True)
class Images:
    """Image files of a folder, each with its size in bytes and its time of change in ns."""

    folder: Path
    names: Sequence[str]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]

    def __len__(self) -> int:
        return len(self.names)

    def keys(self) -> "list[_Key]":
        """What tells whether an image is the one that was packed."""
        return list(zip(self.names, self.sizes, self.mtimes_ns, strict=True))

    def take(self, rows: Sequence[int]) -> "Images":
        """Some of them, in the order of ``rows``."""
        return Images(
            self.folder,
            [self.names[row] for row in rows],
            [self.sizes[row] for row in rows],
            [self.mtimes_ns[row] for row in rows],
        )


@dataclass(frozen=True)
class Pack:
    """The patches of some images, in their order, read from the pack; and the digest of each."""

    patches: Patches
    digests: tuple[bytes, ...]


_Key = tuple[str, int, int]  # name, size, time of change


@dataclass(frozen=True)
class _Held:
    """What a cache folder holds: row and digest of each image packed; ``used`` rows are never written again.

    ``fault`` says why what lies there is of no use; then the rest is empty.
    """

    rows: dict[_Key, tuple[int, bytes]] = field(default_factory=dict)
    used: int = 0
    patches: Patches | None = None
    fault: str = ""


def listed(folder: Path, *, suffix: str) -> Images:
    """The images of a folder, by name.

    Raises:
        DataError: no such folder, or something in it that cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.stat()) for entry in entries if entry.name.endswith(suffix))
    except OSError as cause:
        raise DataError(f"{cause.filename or folder}: cannot be read ({cause.strerror})") from cause
    names = [name for name, _ in found]
    return Images(folder, names, [one.st_size for _, one in found], [one.st_mtime_ns for _, one in found])


def open_pack(images: Images, places: Sequence[Path], *, progress: Progress = silent) -> Pack | None:
    """The images from the first of ``places`` whose pack holds them all; else packed in the first that can be written.

    A few images are decoded and compared with the pack, which is made anew where they differ.

    Args:
        images: what to read.
        places: cache folders, the best one first.
        progress: told of images packed, and why where there was a pack already.

    Returns:
        None where none of ``places`` can be written.

    Raises:
        DataError: an image that is no patch; what was packed before it is kept.
        WriteError: no room for the pack; what was packed is kept.
    """
    for candidate in places if len(images) else ():
        if (found := _complete(images, _held(images, candidate))) is not None:
            return found
    with cache_folder.writable(places, progress=progress) as place:
        if place is None or not len(images):
            return None
        held = _held(images, place)
        if (found := _complete(images, held)) is not None:  # another process packed them meanwhile
            return found
        try:
            _pack(images, place, held, progress)
        except OSError as cause:
            raise _cannot_grow(place, cause.strerror or str(cause)) from cause
        held = _held(images, place)
        if (found := _complete(images, held)) is None:
            raise DataError(f"{place / PACK}: {held.fault or 'incomplete'}, though just made; do images change?")
        return found


def unpacked(images: Images, *, progress: Progress = silent) -> tuple[bytes, ...]:
    """The digest of each image, every one decoded and nothing kept.

    Raises:
        DataError: an image that is no patch.
    """
    found: dict[str, bytes] = {}
    what = f"decode {images.folder.name}, images"
    progress(what, 0, len(images), "to find equal ones; nothing is kept")
    waiting = decoder.blocks(images.folder, images.names)
    with closing(decoder.decode_all(waiting, processes=cpus.usable())) as decoding:
        for block, decoded in decoding:
            if decoded.error is not None:
                raise DataError(decoded.error)
            found.update(zip(block.names, decoded.digests, strict=True))
            progress(what, len(found), len(images))
    return tuple(found[name] for name in images.names)


def _complete(images: Images, held: _Held) -> Pack | None:
    rows = [held.rows.get(key) for key in images.keys()]  # noqa: SIM118  (not a mapping)
    if held.patches is None or None in rows:
        return None
    found = [row for row in rows if row is not None]
    return Pack(Chosen(held.patches, np.array([row for row, _ in found])), tuple(digest for _, digest in found))


def _held(images: Images, place: Path) -> _Held:
    """What the cache folder holds of these images, a few of them compared."""
    if not (place / INDEX).is_file():
        return _Held()
    try:
        arrays, attributes = hdf5.read_arrays(place / INDEX)
        if attributes.get("format") != FORMAT:
            return _Held(fault=f"the pack is of version {attributes.get('format')}, not {FORMAT}")
        rows, used = _rows(arrays), int(attributes["used"])
        patches = pcam.H5Patches(place / PACK)
        if rows and (arrays["rows"].min() < 0 or arrays["rows"].max() >= len(patches)):
            raise ValueError(f"an image has row {arrays['rows'].max()} of {len(patches)}")
    except (ModelError, DataError, KeyError, ValueError, TypeError) as cause:
        return _Held(fault=f"the pack is damaged ({' '.join(str(cause).split())[:120]})")
    there = [key for key in images.keys() if key in rows]  # noqa: SIM118
    for key in (there[number] for number in digests.sample(len(there))):
        (row, digest), path = rows[key], images.folder / key[0]
        if not digests.one(patches[row]) == digest == digests.one(image.read_patch(path)):
            return _Held(fault=f"the pack holds other pixels than {path.parent.name}/{path.name}")
    return _Held(rows, used, patches)


def _rows(arrays: dict[str, np.ndarray]) -> dict[_Key, tuple[int, bytes]]:
    names = os.fsdecode(arrays["names"].tobytes()).split("\0")
    keys = zip(names, arrays["sizes"].tolist(), arrays["mtimes_ns"].tolist(), strict=True)
    places = zip(arrays["rows"].tolist(), digests.as_bytes(arrays["digests"]), strict=True)
    return dict(zip(keys, places, strict=True))


def _pack(images: Images, place: Path, held: _Held, progress: Progress) -> None:
    """Bring the pack up to date: decode what it lacks, then put the index in place."""
    keys = images.keys()
    note = f"anew: {held.fault}" if held.fault else ""
    kept = {key: held.rows[key] for key in keys if key in held.rows}
    if held.fault or 2 * len(kept) < held.used or not any((place / name).exists() for name in (INDEX, JOURNAL)):
        for name in (INDEX, JOURNAL, PACK):
            (place / name).unlink(missing_ok=True)
        held, kept = _Held(), {}
    kept |= _journaled(place, set(keys) - kept.keys(), held.used, progress)
    missing = [key for key in keys if key not in kept]
    _check_room(place, len(missing))
    taken = {row for row, _ in kept.values()}
    free = (row for row in itertools.count(held.used) if row not in taken)
    added = dict(zip((name for name, _, _ in missing), zip(missing, free, strict=False), strict=True))
    what = f"pack {images.folder.name}, images"
    progress(what, len(kept), len(keys), note or f"once, into {place}")
    offsets = [hdf5.ROWS_AT + row * PATCH_BYTES for _, row in added.values()]
    waiting = decoder.blocks(images.folder, list(added), into=place / PACK, offsets=offsets)
    with (
        _flushed(place / PACK),
        open(place / JOURNAL, "ab", buffering=0) as journal,
        closing(decoder.decode_all(waiting, processes=cpus.usable())) as decoding,
    ):
        journal.write(b"\n")  # the last line may be half of one
        for block, decoded in decoding:
            done = [(*added[name], digest) for name, digest in zip(block.names, decoded.digests, strict=False)]
            if done:
                _write_whole(journal.fileno(), json.dumps([(*key, row, digest.hex()) for key, row, digest in done]))
            kept |= {key: (row, digest) for key, row, digest in done}
            progress(what, len(kept), len(keys), note)
            if decoded.error is not None:
                raise _cannot_grow(place, decoded.error) if decoded.full else DataError(decoded.error)
    _finish(place, {key: kept[key] for key in keys}, held.used)


@contextmanager
def _flushed(path: Path) -> Iterator[None]:
    """Make the file, and let the disk take what others write to it meanwhile, not all at the end."""
    done = threading.Event()

    def flush() -> None:
        while not done.wait(FLUSH_S):
            with suppress(OSError):  # told again where the file is closed for good
                os.fsync(file.fileno())

    with open(path, "ab") as file:
        thread = threading.Thread(target=flush)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _write_whole(file: int, line: str) -> None:
    left = memoryview(line.encode() + b"\n")
    while left:
        left = left[os.write(file, left) :]


def _journaled(place: Path, wanted: set[_Key], used: int, progress: Progress) -> dict[_Key, tuple[int, bytes]]:
    """The wanted images that a killed packing added, each read again: what a crash of the machine lost is found so."""
    if not (place / JOURNAL).is_file() or not (place / PACK).is_file():
        return {}
    found: dict[_Key, tuple[int, bytes]] = {}
    for line in (place / JOURNAL).read_bytes().splitlines():
        try:
            entries = [
                ((name, size, mtime), row, bytes.fromhex(one)) for name, size, mtime, row, one in json.loads(line)
            ]
        except (ValueError, TypeError):
            continue  # half a line, or an empty one
        found |= {key: (row, digest) for key, row, digest in entries if key in wanted and row >= used}
    whole = ((place / PACK).stat().st_size - hdf5.ROWS_AT) // PATCH_BYTES
    found = {key: one for key, one in found.items() if one[0] < whole}
    if not found:
        return {}
    offsets = hdf5.ROWS_AT + PATCH_BYTES * np.array([row for row, _ in found.values()])
    rows = FileRows(place / PACK, offsets, (PATCH_PX, PATCH_PX, 3))
    there = digests.of(rows, what="check what was packed before, images", progress=progress)
    return {key: one for (key, one), digest in zip(found.items(), there, strict=True) if one[1] == digest}


def _finish(place: Path, rows: dict[_Key, tuple[int, bytes]], used: int) -> None:
    """Give the pack its head, then put the index in place: the pack is on the disk before the index says so."""
    used = max(used, 1 + max(row for row, _ in rows.values()))
    head = hdf5.rows_header(place, "x", shape=(used, PATCH_PX, PATCH_PX, 3))
    with open(place / PACK, "r+b") as file:
        file.truncate(hdf5.ROWS_AT + used * PATCH_BYTES)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())
    names, sizes, mtimes_ns = zip(*rows, strict=True)
    arrays: dict[str, np.ndarray] = {
        "names": np.frombuffer(os.fsencode("\0".join(names)), np.uint8),
        "sizes": np.array(sizes, np.int64),
        "mtimes_ns": np.array(mtimes_ns, np.int64),
        "rows": np.array([row for row, _ in rows.values()], np.int64),
        "digests": digests.as_array([digest for _, digest in rows.values()]),
    }
    hdf5.write_arrays(place / INDEX, arrays, {"format": FORMAT, "used": used})
    (place / JOURNAL).unlink(missing_ok=True)


def _check_room(place: Path, count: int) -> None:
    needed, free = count * (PATCH_BYTES + INDEX_BYTES), shutil.disk_usage(place).free
    if needed > free:
        raise WriteError(
            f"{place}: {needed / 1e6:,.0f} MB are needed to pack {count} images and {free / 1e6:,.0f} MB are free; "
            "free some space, or give --no-cache"
        )


def _cannot_grow(place: Path, reason: str) -> WriteError:
    return WriteError(
        f"{place / PACK}: cannot be written ({reason}); what is packed is kept: free some space and run the same "
        "command again, or give --no-cache"
    )
