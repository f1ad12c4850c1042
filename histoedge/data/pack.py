"""Pack many small image files into one file of pixels; later commands open only a few images to compare them.

A cache folder contains ``pack.h5``, an HDF5 file with the pixels, and ``index.h5`` with the row of each image in it and
the image's size, modification time and SHA-1. Rows are only appended to a pack: readers are not disturbed, and only
new and changed images are decoded. While a pack grows, ``journal`` lists the rows added; an interrupted packing resumes
from it.
"""

import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cpus
from histoedge.data import cache_folder, decoder, digests, hdf5, image, pcam
from histoedge.data.image_files import Images, Key
from histoedge.data.rows import FileRows, PatchView
from histoedge.data.split import Patches
from histoedge.edge.errors import DataError, ModelError
from histoedge.files import WriteError
from histoedge.progress import Progress, silent

FORMAT = 1
PACK, INDEX, JOURNAL = "pack.h5", "index.h5", "journal"
FLUSH_S = 0.5
INDEX_BYTES = 512  # upper bound of an image's entry in index and journal


@dataclass(frozen=True)
class Pack:
    """The patches of some images, in their order, read from the pack, and their digests."""

    patches: Patches
    digests: tuple[bytes, ...]


@dataclass(frozen=True)
class _Contents:
    """The contents of a cache folder: row and digest of each packed image; ``used`` rows are never written again.

    ``fault`` is the reason why the pack is unusable; the other fields are then empty.
    """

    rows: dict[Key, tuple[int, bytes]] = field(default_factory=dict)
    used: int = 0
    patches: Patches | None = None
    fault: str = ""


def open_pack(images: Images, places: Sequence[Path], *, progress: Progress = silent) -> Pack | None:
    """Open the first complete pack of ``places``; without one, pack the images into the first writable folder.

    A few images are decoded and compared with the pack, which is rebuilt if they differ.

    Args:
        images: the images to read.
        places: cache folders in order of preference.
        progress: called with the images packed, and with the reason if an existing pack is rebuilt.

    Returns:
        The pack, or None if none of ``places`` can be written.

    Raises:
        DataError: an image that is not a patch; the images packed before it are kept.
        WriteError: not enough disk space for the pack; the images packed so far are kept.
    """
    for candidate in places if len(images) else ():
        if (packed := _complete(images, _contents(images, candidate))) is not None:
            return packed
    with cache_folder.writable(places, progress=progress) as place:
        if place is None or not len(images):
            return None
        contents = _contents(images, place)
        if (packed := _complete(images, contents)) is not None:  # by another process in the meantime
            return packed
        try:
            _pack(images, place, contents, progress)
        except OSError as cause:
            raise _cannot_grow(place, cause.strerror or str(cause)) from cause
        contents = _contents(images, place)
        if (packed := _complete(images, contents)) is None:
            reason = contents.fault or "incomplete"
            raise DataError(f"{place / PACK}: {reason} directly after packing; check that no image changes meanwhile")
        return packed


def hash_images(images: Images, *, progress: Progress = silent) -> tuple[bytes, ...]:
    """Decode each image and return its digest; nothing is cached.

    Raises:
        DataError: an image that is not a patch.
    """
    digest_by_name: dict[str, bytes] = {}
    what = f"decode {images.folder.name}, images"
    progress(what, 0, len(images), "to compare their pixels; no cache is written")
    waiting = decoder.blocks(images.folder, images.names, form=images.form)
    with closing(decoder.decode_all(waiting, processes=cpus.usable())) as decoding:
        for block, decoded in decoding:
            if decoded.error is not None:
                raise DataError(decoded.error)
            digest_by_name.update(zip(block.names, decoded.digests, strict=True))
            progress(what, len(digest_by_name), len(images))
    return tuple(digest_by_name[name] for name in images.names)


def _complete(images: Images, contents: _Contents) -> Pack | None:
    """Return the pack if it contains all images."""
    rows = [contents.rows.get(key) for key in images.keys()]  # noqa: SIM118  (not a mapping)
    if contents.patches is None or None in rows:
        return None
    entries = [entry for entry in rows if entry is not None]
    view = PatchView(contents.patches, np.array([row for row, _ in entries]))
    return Pack(view, tuple(digest for _, digest in entries))


def _contents(images: Images, place: Path) -> _Contents:
    """Read the index of a cache folder and compare a few of these images with the pack."""
    if not (place / INDEX).is_file():
        return _Contents()
    try:
        arrays, attributes = hdf5.read_arrays(place / INDEX)
        if attributes.get("format") != FORMAT:
            return _Contents(fault=f"the pack has format {attributes.get('format')}, expected {FORMAT}")
        if fault := _other_form(attributes, images.form):
            return _Contents(fault=fault)
        rows, used = _rows(arrays), int(attributes["used"])
        patches = pcam.H5Patches(place / PACK)
        if patches.shape[1] != images.form.patch_px:
            raise ValueError(f"patches of {patches.shape[1]} px")
        if rows and (arrays["rows"].min() < 0 or arrays["rows"].max() >= len(patches)):
            raise ValueError(f"row {arrays['rows'].max()} of {len(patches)} rows")
    except (ModelError, DataError, KeyError, ValueError, TypeError) as cause:
        return _Contents(fault=f"the pack is damaged ({' '.join(str(cause).split())[:120]})")
    packed = [key for key in images.keys() if key in rows]  # noqa: SIM118
    for key in (packed[number] for number in digests.sample_rows(len(packed))):
        (row, digest), path = rows[key], images.folder / key[0]
        if (
            not digests.digest_of(patches[row])
            == digest
            == digests.digest_of(image.patch_of_data(path, images.form, where=str(path)))
        ):
            return _Contents(fault=f"the pixels of {path.parent.name}/{path.name} differ from the pack")
    return _Contents(rows, used, patches)


def _form_of(stored: dict[str, Any]) -> image.Form:
    """Return the form in an index or journal; files without it are of PatchCamelyon's."""
    form = image.FORM
    return image.Form(stored.get("patch_px", form.patch_px), stored.get("resample", form.resample))


def _other_form(attributes: dict[str, Any], form: image.Form) -> str:
    stored = _form_of(attributes)
    if stored == form:
        return ""
    return f"the pack has {_in_words(stored)}, DATA has {_in_words(form)}"


def _in_words(form: image.Form) -> str:
    return f"{'resampled ' if form.resample else ''}patches of {form.patch_px} px"


def _rows(arrays: dict[str, np.ndarray]) -> dict[Key, tuple[int, bytes]]:
    names = os.fsdecode(arrays["names"].tobytes()).split("\0")
    keys = zip(names, arrays["sizes"].tolist(), arrays["mtimes_ns"].tolist(), strict=True)
    places = zip(arrays["rows"].tolist(), digests.as_bytes(arrays["digests"]), strict=True)
    return dict(zip(keys, places, strict=True))


def _pack(images: Images, place: Path, contents: _Contents, progress: Progress) -> None:
    """Decode the images that the pack lacks, then write the index."""
    keys = images.keys()
    note = f"rebuilt: {contents.fault}" if contents.fault else ""
    rows = {key: contents.rows[key] for key in keys if key in contents.rows}
    if contents.fault or 2 * len(rows) < contents.used or not any((place / name).exists() for name in (INDEX, JOURNAL)):
        for name in (INDEX, JOURNAL, PACK):
            (place / name).unlink(missing_ok=True)
        contents, rows = _Contents(), {}
    rows |= _journaled(place, set(keys) - rows.keys(), contents.used, images.form, progress)
    missing = [key for key in keys if key not in rows]
    check_room(place, len(missing), images.form)
    taken = {row for row, _ in rows.values()}
    free = (row for row in itertools.count(contents.used) if row not in taken)
    added = dict(zip((name for name, _, _ in missing), zip(missing, free, strict=False), strict=True))
    what = f"pack {images.folder.name}, images"
    progress(what, len(rows), len(keys), note or f"once, into {place}")
    offsets = [hdf5.ROWS_AT + row * images.form.patch_bytes for _, row in added.values()]
    waiting = decoder.blocks(images.folder, list(added), form=images.form, into=place / PACK, offsets=offsets)
    with (
        _flushed(place / PACK),
        open(place / JOURNAL, "ab", buffering=0) as journal,
        closing(decoder.decode_all(waiting, processes=cpus.usable())) as decoding,
    ):
        _write_whole(journal.fileno(), "\n" + json.dumps(asdict(images.form)))  # ends a line left incomplete
        for block, decoded in decoding:
            done = [(*added[name], digest) for name, digest in zip(block.names, decoded.digests, strict=False)]
            if done:
                _write_whole(journal.fileno(), json.dumps([(*key, row, digest.hex()) for key, row, digest in done]))
            rows |= {key: (row, digest) for key, row, digest in done}
            progress(what, len(rows), len(keys), note)
            if decoded.error is not None:
                raise _cannot_grow(place, decoded.error) if decoded.full else DataError(decoded.error)
    _finish(place, {key: rows[key] for key in keys}, contents.used, images.form)


@contextmanager
def _flushed(path: Path) -> Iterator[None]:
    """Create the file and flush it to disk regularly while the decoder processes write to it."""
    done = threading.Event()

    def flush() -> None:
        while not done.wait(FLUSH_S):
            with suppress(OSError):  # a lasting error is raised again when the file is finished
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


def _journaled(
    place: Path, wanted: set[Key], used: int, form: image.Form, progress: Progress
) -> dict[Key, tuple[int, bytes]]:
    """Return the wanted images of an interrupted packing whose pixels are on disk and match their digest.

    Each packing starts with a line of its form; images of another form are not wanted.
    """
    if not (place / JOURNAL).is_file() or not (place / PACK).is_file():
        return {}
    rows: dict[Key, tuple[int, bytes]] = {}
    stored = image.FORM
    for line in (place / JOURNAL).read_bytes().splitlines():
        try:
            values = json.loads(line)
            if isinstance(values, dict):
                stored = _form_of(values)
                continue
            entries = [((name, size, mtime), row, bytes.fromhex(digest)) for name, size, mtime, row, digest in values]
        except (ValueError, TypeError):
            continue  # an incomplete or empty line
        if stored == form:
            rows |= {key: (row, digest) for key, row, digest in entries if key in wanted and row >= used}
    complete = ((place / PACK).stat().st_size - hdf5.ROWS_AT) // form.patch_bytes
    rows = {key: entry for key, entry in rows.items() if entry[0] < complete}
    if not rows:
        return {}
    offsets = hdf5.ROWS_AT + form.patch_bytes * np.array([row for row, _ in rows.values()])
    patches = FileRows(place / PACK, offsets, (form.patch_px, form.patch_px, 3))
    on_disk = digests.hash_patches(patches, what="check interrupted pack, images", progress=progress)
    return {key: entry for (key, entry), digest in zip(rows.items(), on_disk, strict=True) if entry[1] == digest}


def _finish(place: Path, rows: dict[Key, tuple[int, bytes]], used: int, form: image.Form) -> None:
    """Write the header of the pack, then the index: the pack is on disk before the index refers to it."""
    used = max(used, 1 + max(row for row, _ in rows.values()))
    head = hdf5.rows_header(place, "x", shape=(used, form.patch_px, form.patch_px, 3))
    with open(place / PACK, "r+b") as file:
        file.truncate(hdf5.ROWS_AT + used * form.patch_bytes)
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
    hdf5.write_arrays(place / INDEX, arrays, {"format": FORMAT, "used": used, **asdict(form)})
    (place / JOURNAL).unlink(missing_ok=True)


def check_room(place: Path, count: int, form: image.Form) -> None:
    """Check that the disk has room for the patches of ``count`` images.

    Raises:
        WriteError: it has not.
    """
    needed, free = count * (form.patch_bytes + INDEX_BYTES), shutil.disk_usage(place).free
    if needed > free:
        raise WriteError(
            f"{place}: packing {count} images needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
            "free disk space, or use --no-cache"
        )


def _cannot_grow(place: Path, reason: str) -> WriteError:
    return WriteError(
        f"{place / PACK}: cannot be written ({reason}); free disk space and run the same command again, which resumes, "
        "or use --no-cache"
    )
