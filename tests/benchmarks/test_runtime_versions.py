"""benchmarks/runtime_versions.py"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Script = Callable[[str], ModuleType]


def test_writes_are_distinguished_from_reads_and_failures_in_a_trace(script: Script, tmp_path: Path) -> None:
    calls = (
        '7 openat(AT_FDCWD, "/usr/lib/libm.so.6", O_RDONLY|O_CLOEXEC) = 3',
        f'7 openat(AT_FDCWD, "{tmp_path}/out/a.csv", O_WRONLY|O_CREAT, 0666) = 4',
        '7 openat(AT_FDCWD, "/home/u/.cache/usage.db", O_RDWR|O_CREAT, 0644) = 5',
        '7 mkdir("/home/u/.cache", 0700) = -1 EEXIST (File exists)',
        '7 rename("/home/u/.part", "/home/u/a") = 0',
        '7 openat(AT_FDCWD, "/dev/null", O_RDWR) = 6',
    )
    assert script("runtime_versions").writes("\n".join(calls), tmp_path / "out") == [
        "/home/u/.cache/usage.db",
        "/home/u/.part",
    ]
