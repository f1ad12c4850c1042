"""The cache folder of a data set, for results that later commands reuse."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from histoedge.lock import flock
from histoedge.progress import Progress

FOLDER = ".histoedge"
SAMPLE = 16  # patches compared with the source before a cache is used


def cache_folders(folder: Path) -> tuple[Path, Path]:
    """Return the possible cache folders of the data set in ``folder``: inside it, or in the user's cache."""
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return folder / FOLDER, users() / "data" / key


def users() -> Path:
    """Return the histoedge folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histoedge"


@contextmanager
def writable(folders: Sequence[Path], *, progress: Progress) -> Iterator[Path | None]:
    """Lock the first of these folders that can be written against other processes, and yield it; None without one.

    Waits for the lock of another process; ``progress`` is then called with the folder.
    """
    for place in folders:
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = open(place / "lock", "ab")  # noqa: SIM115  (closed below)
        except OSError:
            continue
        with lock:
            try:
                _lock(lock.fileno(), place, progress)
            except OSError:  # a file system without locks, or Windows
                continue
            yield place
            return
    yield None


def _lock(descriptor: int, place: Path, progress: Progress) -> None:
    try:
        flock(descriptor, wait=False)
    except BlockingIOError:
        what, note = "wait for another command", f"which writes {place}"
        progress(what, 0, 1, note)
        flock(descriptor, wait=True)
        progress(what, 1, 1, note)
