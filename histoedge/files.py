"""Write files atomically, and hash them.

A file is written under a temporary name in the same folder, flushed to disk and renamed. A reader sees the old file or
the new one, even after ``kill -9`` or with a full disk.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from histoedge.edge.errors import DataError, HistoedgeError

TEMPORARY_SUFFIX = ".part"
LARGEST_JSON_BYTES = 16 << 20
MAKE_TRIES = 100


class WriteError(HistoedgeError):
    """A file cannot be written: full disk, missing permission, or a folder with its name."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, and rename it to ``path`` when the block succeeds.

    When the block raises, the temporary file is removed and ``path`` is unchanged. A temporary file of a killed process
    is overwritten by the next writer.

    Raises:
        WriteError: the disk is full or ``path`` cannot be written.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> OSError | WriteError:
    """Return a ``WriteError`` for an ``error`` that the user can fix; other errors unchanged."""
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return WriteError(f"{path}: the disk is full; free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return WriteError(f"{path}: cannot be written ({os.strerror(error.errno)}); choose another place")
    return error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder next to ``path``, and replace ``path`` by it when the block succeeds.

    When the block raises, the new folder is removed and ``path`` is unchanged. The old folder is removed last; if the
    process is killed between the two renames, it remains as ``.<name>.old``.

    Raises:
        WriteError: the disk is full or ``path`` cannot be written.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    old = path.with_name(f".{path.name}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create the folder and its missing parents; try again if another process removes them meanwhile.

    Raises:
        WriteError: the folder cannot be created.
    """
    for tries_left in reversed(range(MAKE_TRIES)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except OSError as error:
            removed_meanwhile = isinstance(error, FileExistsError | FileNotFoundError)
            if not (removed_meanwhile and tries_left):
                raise WriteError(
                    f"{path}: cannot create this folder ({error.strerror}); choose another place"
                ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` atomically, as indented JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expand(
    places: Sequence[Path], listing: Callable[[Path], list[Path]], *, kind: str, suffixes: Sequence[str]
) -> list[Path]:
    """Return the files of ``places``: files in the order given, and for each folder the files of its ``listing``.

    Args:
        places: files and folders.
        listing: returns the files of a folder that count, in order.
        kind: noun of a file in error messages, such as ``image``.
        suffixes: of the files that count in a folder, for the error message.

    Raises:
        DataError: a place that does not exist, or a folder whose listing is empty.
    """
    paths: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = listing(place)
            if not inside:
                raise DataError(f"{place}: no {kind}s in this folder; expected files ending in {', '.join(suffixes)}")
            paths += inside
        elif place.is_file():
            paths.append(place)
        else:
            raise DataError(f"{place}: no such {kind} or folder")
    return paths


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed writers in ``folder`` and one level below."""
    for pattern in (f".*{TEMPORARY_SUFFIX}", f"*/.*{TEMPORARY_SUFFIX}"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
