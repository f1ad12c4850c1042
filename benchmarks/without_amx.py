"""Run a command without AMX on a CPU that has it: ``python benchmarks/without_amx.py COMMAND...``.

Scanner computers have VNNI at best, and AMX changes which networks are fast: its tiles cost the same for 8 channels as
for 64. A process must request AMX from Linux (``arch_prctl``, ``ARCH_REQ_XCOMP_PERM``); when Linux refuses, all
runtimes use their VNNI kernels. This script installs a seccomp filter that refuses the request, for the command and its
children.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_RET+K
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
X86_64, ARCH_PRCTL, ARCH_REQ_XCOMP_PERM = 0xC000003E, 158, 0x1023
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

FILTER = (  # code, jump if true, jump if false, value
    (LOAD, 0, 0, ARCHITECTURE),
    (EQUAL, 0, 5, X86_64),
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 3, ARCH_PRCTL),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (EQUAL, 0, 1, ARCH_REQ_XCOMP_PERM),
    (RETURN, 0, 0, REFUSE),
    (RETURN, 0, 0, ALLOW),
)


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_amx() -> None:
    """Install the filter in this process.

    Raises:
        OSError: Linux does not accept the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("HBBI", *line) for line in FILTER)
    program = Program(len(FILTER), code)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*call, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    refuse_amx()
    os.execvp(sys.argv[1], sys.argv[1:])
