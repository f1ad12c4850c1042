"""The machine and versions of a measurement. No host name, user or path, because results files are published."""

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from histoedge import cpus, memory
from histoedge.data import Split
from histoedge.version import __version__

INTERESTING_FLAGS = (
    *("sse4_1", "ssse3", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "sve"),
)
NOTABLE_FLAGS = {
    "amx_int8": "amx",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512f": "avx512",
    "avx2": "avx2",
    "i8mm": "i8mm",
    "asimddp": "dotprod",
    "asimd": "neon",
}
"""CPU instructions that determine the speed of 8-bit multiplications, the fastest first, with their short names."""

GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
"""Git that only reads: it takes no lock and starts no hook program from the settings of the checkout."""

GIT_TIMEOUT_S = 10.0
PACKAGES = ("numpy", "ai-edge-litert", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorflow", "keras", "jax")


def this_machine() -> dict[str, Any]:
    """Return CPU, memory, limits of the container, system and versions; None for what the system does not report.

    ``date`` is the current day in UTC, ``commit`` that of the checkout (see ``commit``).
    """
    cpu = _cpuinfo(Path("/proc/cpuinfo"))
    flags = [flag for flag in INTERESTING_FLAGS if flag in cpu.get("flags", cpu.get("Features", "")).split()]
    refused = [flag for flag in flags if flag.startswith("amx") and not _amx_is_permitted()]
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in flags if flag not in refused],
        "cpu_flags_refused": refused,
        "cpus_in_machine": psutil.cpu_count(),
        "cpus_allowed": cpus.allowed(),
        "cpu_quota": _cpu_quota(Path("/sys/fs/cgroup/cpu.max")),
        "cpu_governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "cpu_turbo": _turbo(),
        "cpu_mhz": _megahertz(cpu.get("cpu MHz")),
        "threads_per_core": _threads_per_core(Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "virtual_machine": "hypervisor" in cpu.get("flags", "").split(),
        "gpus": _gpus(Path("/proc/driver/nvidia/gpus")),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": memory.limit_bytes(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "histoedge": __version__,
        "commit": commit(Path(__file__).parents[2]),
        "date": datetime.now(UTC).date().isoformat(),
        "packages": packages(),
        "load_average": load_average(),
    }


def subject(models: Sequence[Path], split: Split) -> dict[str, Any]:
    """Return what was measured, in names that may be published: ``run``, ``data`` and ``patches``.

    Args:
        models: exported files.
        split: the test patches.

    Returns:
        ``run``: names of the run folders of the models, joined by commas; None if a file is not in a run folder.
        ``data``: ``synthetic`` for patches of ``data.synthetic``, None for others. ``patches``: their number.
    """
    runs = [folder_name(path.parent.parent) if path.parent.name == "models" else None for path in models]
    names = list(dict.fromkeys(runs))
    slides = split.slides or ()
    return {
        "run": None if None in names or not names else ", ".join(str(name) for name in names),
        "data": "synthetic" if any(slide.startswith(f"{split.name}-slide-") for slide in slides) else None,
        "patches": len(split.labels),
    }


def folder_name(folder: Path) -> str | None:
    """Return the last part of the path; None for the root, and for a home folder because it is named after a user."""
    whole = folder.resolve()
    return None if whole in (Path.home(), Path(whole.anchor)) else whole.name


def commit(checkout: Path) -> str | None:
    """Return the commit of a git work tree, 12 digits, followed by ``+`` if tracked files were changed.

    None if the folder is not a work tree (an installed package), or git is missing, fails or takes too long.
    """
    if not (checkout / ".git").exists():
        return None
    command = [*GIT, "-C", str(checkout), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, env=variables)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def machine_name(described: Mapping[str, Any]) -> str:
    """Return a name for the folder of a machine's results: maker, family, notable instructions, CPUs allowed.

    Examples: ``intel-xeon-amx-4-cores``, ``intel-xeon-amx-4-cores-without-amx`` if the system refuses AMX. Machines of
    different clock rates or generations can have the same name; their results have different environments.

    Args:
        described: the result of ``this_machine``.
    """
    flags, refused = set(described["cpu_flags"]), set(described.get("cpu_flags_refused", ()))
    kernels = (name for flag, name in NOTABLE_FLAGS.items() if flag in flags | refused)
    cores = described["cpus_allowed"] or described["cpus_in_machine"]
    parts = [_family(described["cpu"]), next(kernels, described["machine"]), f"{cores}-cores"]
    parts += [_family(gpu) for gpu in described.get("gpus", ())[:1]]
    parts += ["without-amx"] if refused else []
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower())


def _family(name: str) -> str:
    """Return the first two words of a processor's name without trademark signs, such as ``Intel Xeon``."""
    words = re.sub(r"\((?:R|TM)\)", "", name, flags=re.IGNORECASE).split()
    return " ".join([word for word in words if word.lower() not in ("cpu", "processor")][:2])


def without_folder(reason: str, folder: Path) -> str:
    """Return a message without the path of this folder, only with file names."""
    return reason if folder == Path() else reason.replace(f"{folder}{os.sep}", "")


def load_average() -> list[float]:
    """Return the average number of runnable processes over the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in psutil.getloadavg()]


def packages() -> dict[str, str]:
    """Return the versions of the installed packages that affect speed or results."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _amx_is_permitted() -> bool:
    """Whether Linux permits AMX to this process; it must be requested (Documentation/arch/x86/xstate.rst)."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0  # type: ignore[no-any-return]


def _cpuinfo(file: Path) -> dict[str, str]:
    """Return the entries of the first processor; empty without such a file."""
    first = (_read(file) or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_quota(file: Path) -> float | None:
    """Return the CPU limit of the control group (``quota period`` in microseconds); None without a limit."""
    quota, _, period = (_read(file) or "").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _turbo() -> bool | None:
    """Whether intel_pstate or acpi_cpufreq permits turbo; None if neither reports it."""
    intel = _read(Path("/sys/devices/system/cpu/intel_pstate/no_turbo"))
    other = _read(Path("/sys/devices/system/cpu/cpufreq/boost"))
    if intel is not None:
        return intel == "0"
    return None if other is None else other == "1"


def _megahertz(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _threads_per_core(file: Path) -> int | None:
    """Count the hardware threads in a list such as ``0,64`` or ``0-1``."""
    text = _read(file)
    if not text:
        return None
    ends = [part.split("-") for part in text.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)


def _gpus(folder: Path) -> list[str]:
    """Return the models of the NVIDIA GPUs in the driver's list; no serial numbers."""
    contents = [_read(file) or "" for file in sorted(folder.glob("*/information"))]
    lines = [line.partition(":") for text in contents for line in text.splitlines()]
    return [value.strip() for key, _, value in lines if key.strip() == "Model"]


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None
