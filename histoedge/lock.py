"""One process at a time in the folder of a run: a second one is refused before it writes anything.

The lock is the kernel's (``flock`` on ``RUN/.lock``), so it ends with its process however that dies. What the file
says, a process and its host, is for the message alone.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from histoedge import files
from histoedge.edge.errors import ConfigError

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
WRITTEN_WITHIN_S = 1.0  # between taking the lock and saying who holds it


class InUse(ConfigError):
    """Another process works in this folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of a run for this process, and let it go when the block ends.

    The folder is made where it is missing, and removed again where the block leaves it empty. Nothing of the lock is
    left behind; what a killed process left is taken over. Processes that train together (``KERAS_DISTRIBUTION_*``)
    share the hold of the first of them.

    Raises:
        InUse: another process holds it; the message names that process.
        ConfigError: the file system has no locks.
        WriteError: the folder cannot be made or written.
    """
    if os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0") != "0":
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        descriptor = _taken(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / NAME).unlink()  # before it is let go: else another process may hold what is unlinked
            os.close(descriptor)
    finally:
        with suppress(OSError):  # the first that is not empty
            for path in missing:
                path.rmdir()


def _taken(folder: Path) -> int:
    """A descriptor of ``folder/.lock`` that holds the lock; the file says who holds it."""
    path = folder / NAME
    while True:
        files.make_folder(folder)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process made the folder, found nothing to do and removed it
            continue
        except OSError as error:
            message = f"{path}: cannot be written ({os.strerror(error.errno or 0)}); choose another folder"
            raise files.WriteError(message) from error
        try:
            _lock(descriptor, path)
            if _is_at(path, descriptor):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it as we opened it: there is a new one, or none


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"{path.parent}: in use by {_holder(descriptor)}; wait until it has ended, or use another folder"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"{path.parent}: its file system has no locks ({os.strerror(error.errno)}), so two processes could write "
            "to one run at once; use a folder on another disk, and copy the run when it is done"
        ) from error


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _sign(descriptor: int) -> None:
    told = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(told).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who holds the lock, as told in the file; a holder that has only just taken it is given time to tell."""
    until = time.monotonic() + WRITTEN_WITHIN_S
    while True:
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {told['process']} on {told['host']} since {told['since']}"
        if time.monotonic() > until:
            return "another process"
        time.sleep(0.01)
