"""benchmarks/without_amx.py"""

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="AMX is of x86, asked of Linux"
)
def test_amx_is_refused_to_a_command_and_its_children() -> None:
    ask = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(158, 0x1023, 18), ctypes.get_errno())"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    command = [sys.executable, str(FOLDER / "without_amx.py"), sys.executable, "-c", child]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-1", str(errno.EPERM)]
