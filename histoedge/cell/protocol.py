"""Code that the parent and the child share: requests, one-line messages, peak memory."""

import sys
from importlib import import_module
from typing import Any

from histoedge import edge

Request = dict[str, Any]
INTERPRETER_MODULES = {"ai_edge_litert": "ai_edge_litert.interpreter"}
"""The module to import for packages whose top level imports nothing."""


def prepare(request: Request) -> None:
    """Import the library of ``request["runtime"]``, to exclude the import from ``load_ms``."""
    row = edge.all_runtimes().get(request["runtime"])
    if row is not None and row.installed():
        import_module(INTERPRETER_MODULES.get(row.module, row.module))


def one_line(text: str, length: int = 300) -> str:
    """Return ``text`` without line breaks, cut to ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def peak_rss_bytes() -> int | None:
    """Return the peak resident set size of this process in bytes; None if the system does not report it.

    On Linux ``VmHWM``, because ``ru_maxrss`` survives ``exec`` and includes the parent's peak (getrusage(2)).
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
