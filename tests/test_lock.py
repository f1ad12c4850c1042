"""Real processes in one folder; the holder of a lock is killed, and no test sleeps."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from histoedge import files, lock
from histoedge.data import cache_folder
from histoedge.edge.errors import ConfigError
from histoedge.progress import silent

HOLD = "import sys; from pathlib import Path; from histoedge import lock\nwith lock.held(Path(sys.argv[1])): "
REFUSE_FLOCK = """
import ctypes, errno, os, struct, sys
from pathlib import Path
from histoedge import lock
from histoedge.edge.errors import ConfigError
# the seccomp filter of benchmarks/without_amx.py, for flock (73 on x86-64): fails as on a file system without locks
lines = (0x20, 0, 0, 4), (0x15, 0, 3, 0xC000003E), (0x20, 0, 0, 0), (0x15, 0, 1, 73), (6, 0, 0, 0x50000 | errno.ENOLCK)
code = b"".join(struct.pack("HBBI", *line) for line in (*lines, (6, 0, 0, 0x7FFF0000)))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
libc, program = ctypes.CDLL(None), Program(6, code)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("no filter")
try:
    with lock.held(Path(sys.argv[1])):
        print("held")
except ConfigError as error:
    print(error)
"""


@contextmanager
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that locks the folder until it is killed."""
    command = [sys.executable, "-c", f"{HOLD}print('held', flush=True); sys.stdin.read()", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_the_message_names_the_first(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as first:
        message = f"run: in use by process {first.pid} on .+ since .+; wait until"
        with pytest.raises(lock.InUse, match=message) as caught, lock.held(tmp_path / "run"):
            pass
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1
        assert (tmp_path / "run" / lock.NAME).is_file()


def test_the_lock_file_of_a_killed_process_is_reused(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert (tmp_path / lock.NAME).is_file()
        with lock.held(tmp_path), pytest.raises(lock.InUse, match=f"process {os.getpid()} "), lock.held(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with lock.held(tmp_path):
            pass
    finally:
        child.communicate(b"\n")


def test_of_many_concurrent_processes_one_has_the_lock(tmp_path: Path) -> None:
    """Each process writes its own file while it has the lock, checks that no other exists, and removes it."""
    body = (
        "import os; mine = Path(sys.argv[1]) / str(os.getpid()); mine.touch(); "
        "assert len(list(mine.parent.glob('[0-9]*'))) == 1; mine.unlink()"
    )
    loop = "import sys\nfrom pathlib import Path\nfrom histoedge import lock\nfor _ in range(200):\n  try:\n   {}\n"
    code = loop.format(f"with lock.held(Path(sys.argv[1])): {body}") + "  except lock.InUse: pass\n"
    run = tmp_path / "run"
    racers = [subprocess.Popen([sys.executable, "-c", code, str(run)], stderr=subprocess.PIPE) for _ in range(3)]
    assert [racer.communicate()[1] for racer in racers] == [b""] * 3
    assert not list(run.glob("*"))  # the process that created the folder may not be the last


def test_no_files_or_folders_remain(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with lock.held(tmp_path / "empty"):
        pass
    with lock.held(tmp_path / "new"):
        (tmp_path / "new" / "kept").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "kept", "new"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(files.WriteError, match="cannot create this folder"), lock.held(tmp_path / "file"):
        pass
    (tmp_path / "run" / lock.NAME).mkdir(parents=True)
    with pytest.raises(files.WriteError, match="cannot be written"), lock.held(tmp_path / "run"):
        pass


@pytest.mark.skipif(sys.platform != "linux" or struct.calcsize("P") != 8, reason="the filter needs 64-bit Linux")
def test_a_file_system_without_locks_is_one_line(tmp_path: Path) -> None:
    run = [sys.executable, "-c", REFUSE_FLOCK, str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.stdout == "held\n" or "no filter" in done.stderr:
        pytest.skip("needs seccomp on x86-64")
    assert done.stdout.startswith(f"{tmp_path / 'run'}: its file system has no locks (No locks available)")
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert issubclass(lock.InUse, ConfigError)


def test_a_system_without_flock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(ConfigError, match="has no locks"), lock.held(tmp_path / "run"):
        pass
    with cache_folder.writable([tmp_path / "cache"], progress=silent) as place:
        assert place is None
