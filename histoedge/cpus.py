"""The number of CPUs that this process may use."""

import os


def allowed() -> int | None:
    """Return the number of CPUs in the affinity mask of this process; None where the system has no such mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def usable() -> int:
    """Return ``allowed()``, or the number of CPUs of the machine; at least 1."""
    return allowed() or os.cpu_count() or 1
