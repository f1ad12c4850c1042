"""Where what was found out about a data set is kept, so that later commands need not find it out again."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from histoedge.lock import flock
from histoedge.progress import Progress

FOLDER = ".histoedge"
SAMPLE = 16  # patches that are compared before what was kept is believed


def users() -> Path:
    """The folder below the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histoedge"


def cache_folders(folder: Path) -> tuple[Path, Path]:
    """Where the cache of the data set in ``folder`` may lie: there, or below the user's cache."""
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return folder / FOLDER, users() / "data" / key


@contextmanager
def writable(found: Sequence[Path], *, progress: Progress) -> Iterator[Path | None]:
    """The first of these folders that can be written, held so that no other process writes there; else None.

    ``progress`` is told where another process holds it, which is waited for.
    """
    for place in found:
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
        what, note = "wait for another command", f"it writes {place}"
        progress(what, 0, 1, note)
        flock(descriptor, wait=True)
        progress(what, 1, 1, note)
