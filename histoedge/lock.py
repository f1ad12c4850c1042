"""A lock on the folder of a run: only one process at a time may write to it.

The lock is ``flock`` on ``RUN/.lock``; the kernel releases it when the process ends, even after ``kill -9``. The file
contains the process and its host, only for the error message.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from histoedge import files
from histoedge.edge.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
SIGNATURE_WAIT_S = 1.0  # between taking the lock and writing the holder into the file


class InUse(ConfigError):
    """Another process works in this folder."""


def flock(descriptor: int, *, wait: bool) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process has the lock, and ``wait`` is False.
        OSError: this file system or operating system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock the folder of a run for this process, and unlock it when the block ends.

    A missing folder is created, and removed again if the block leaves it empty. The lock file is removed at the end;
    the lock file of a killed process is reused. Processes that train together (``KERAS_DISTRIBUTION_*``) share the lock
    of the first.

    Raises:
        InUse: another process has the lock; the message names it.
        ConfigError: the file system has no locks.
        WriteError: the folder cannot be created or written.
    """
    if os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0") != "0":
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        descriptor = _open_locked(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / NAME).unlink()  # before unlocking: otherwise another process could lock the unlinked file
            os.close(descriptor)
    finally:
        with suppress(OSError):  # stops at the first folder that is not empty
            for path in missing:
                path.rmdir()


def _open_locked(folder: Path) -> int:
    """Return a descriptor of ``folder/.lock`` with the lock, after writing this process into the file."""
    path = folder / NAME
    while True:
        files.make_folder(folder)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process removed the empty folder
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
        os.close(descriptor)  # the holder removed the file after we opened it: try again


def _lock(descriptor: int, path: Path) -> None:
    try:
        flock(descriptor, wait=False)
    except BlockingIOError:
        raise InUse(
            f"{path.parent}: in use by {_holder(descriptor)}; wait until it has finished, or use another folder"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"{path.parent}: its file system has no locks ({os.strerror(error.errno)}), which protect a run from two "
            "concurrent processes; use a folder on another disk, and copy the run when it is finished"
        ) from error


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(descriptor))


def _sign(descriptor: int) -> None:
    signature = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(signature).encode(), 0)


def _holder(descriptor: int) -> str:
    """Return the holder named in the file; waits for a holder that has not written its name yet."""
    until = time.monotonic() + SIGNATURE_WAIT_S
    while True:
        with suppress(ValueError, KeyError, TypeError):
            signature = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {signature['process']} on {signature['host']} since {signature['since']}"
        if time.monotonic() > until:
            return "another process"
        time.sleep(0.01)
