"""Memory available to this process: free memory of the machine, within the limits of its control groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIPS = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60  # version 1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Memory:
    """``free_bytes`` that are available, and ``limited_by``, the source of this limit."""

    free_bytes: int
    limited_by: str


def free() -> Memory:
    """Return the available memory: the minimum over the machine and each control group of this process.

    A control group's cached file pages count as free: the kernel reclaims them first.
    """
    limits = [Memory(psutil.virtual_memory().available, "this machine")]
    for folder in _groups():
        if (left := _left(folder)) is not None:
            limits.append(Memory(left, "the control group"))
    return min(limits, key=lambda memory: memory.free_bytes)


def resident_bytes() -> int:
    """Return the memory that this process occupies."""
    return int(psutil.Process().memory_info().rss)


def limit_bytes() -> int | None:
    """Return the lowest memory limit of this process' control groups; None without one."""
    limits = [limit for folder in _groups() if (limit := limit_of(folder)) is not None]
    return min(limits, default=None)


def _groups() -> Iterator[Path]:
    """Yield the folders of the memory controller: of the process' own group, and of its parent groups.

    Version 2 has one line, ``0::/path``; version 1 has one line for each controller, ``4:memory:/path`` (cgroups(7)).
    In a container the path may be the host's, of which only the root is visible.
    """
    for line in _text(MEMBERSHIPS).splitlines():
        _, controllers, path = line.split(":", 2)
        root = CGROUPS if controllers == "" else CGROUPS / "memory"
        if controllers not in ("", "memory"):
            continue
        folder = root / path.lstrip("/")
        while True:
            if folder.is_dir():
                yield folder
            if folder == root or root not in folder.parents:
                break
            folder = folder.parent


def limit_of(folder: Path) -> int | None:
    """Return the memory limit of one control group; None without one."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _number(folder / name)
        if limit is not None and limit < UNLIMITED:
            return limit
    return None


def _left(folder: Path) -> int | None:
    """Return the limit minus the memory used except file pages; None without a limit."""
    limit = limit_of(folder)
    if limit is None:
        return None
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    rows = (line.split() for line in _text(folder / "memory.stat").splitlines())
    stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    pages = sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("inactive_file", "active_file"))
    return max(0, limit - max(0, used - pages))


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
