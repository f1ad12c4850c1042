import shutil

import pytest

from histoedge.benchmark import environment

pytest.importorskip("tensorflow", reason="the lab is not installed")


@pytest.fixture(scope="session")
def without_vnni() -> tuple[str, ...]:
    """What to put before a command so that it runs on an x86 CPU without VNNI: nothing where this is one."""
    here = environment.this_machine()
    if "avx2" in here["cpu_flags"] and not {"avx_vnni", "avx512_vnni"} & set(here["cpu_flags"]):
        return ()
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs an x86 CPU without VNNI, or qemu-x86_64 (Debian: qemu-user), which emulates one")
    return (emulator, "-cpu", "Haswell")
