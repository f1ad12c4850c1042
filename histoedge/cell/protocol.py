"""What both ends of the pipe share."""

import sys
from importlib import import_module
from typing import Any

from histoedge import edge

Request = dict[str, Any]
INTERPRETER_MODULES = {"ai_edge_litert": "ai_edge_litert.interpreter"}
"""Where importing the package alone loads nothing."""


def peak_rss_bytes() -> int | None:
    """The largest resident set of this process so far, in bytes; None where the system does not tell.

    Linux's ``VmHWM``, because ``ru_maxrss`` survives ``exec`` and so still holds the parent's peak (getrusage(2)).
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


def one_line(text: str, length: int = 300) -> str:
    """``text`` without line breaks, cut to ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def prepare(request: Request) -> None:
    """Import the library of ``request["runtime"]``, so that doing so is no part of ``load_ms``."""
    row = edge.all_runtimes().get(request["runtime"])
    if row is not None and row.installed():
        import_module(INTERPRETER_MODULES.get(row.module, row.module))
