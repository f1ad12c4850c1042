"""Files on runtimes, patches and processes, as several scripts need them."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from histoedge import edge
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import RuntimeUnavailable

TIMED_PATCHES = 256  # as in histoedge bench


def files_on_runtimes(models: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return each exported file with the name of each installed runtime that opens it.

    Raises:
        ModelError: a file is missing, changed or unreadable.
        RuntimeUnavailable: no installed runtime opens any of the files.
    """
    pairs = [
        (model, runtime.name)
        for model in models
        for runtime in edge.RUNTIMES.values()
        if manifests.read(model).format in runtime.formats and runtime.installed()
    ]
    if not pairs:
        names = ", ".join(model.name for model in models)
        raise RuntimeUnavailable(f"{names}: no installed runtime opens this; pip install 'histoedge[onnx]'")
    return pairs


def labelled(model: Path) -> str:
    """Return network and file name, such as ``edge int8.onnx``."""
    return f"{manifests.read(model).network} {model.name}"


def evenly_spaced(split: Split, count: int = TIMED_PATCHES) -> np.ndarray:
    """Return ``count`` patches spread evenly over the split, uint8 (N, 96, 96, 3); all where it has fewer."""
    rows = np.unique(np.linspace(0, len(split.labels) - 1, count).astype(int))
    return np.asarray(split.patches[rows])


def pin_to_cores(count: int) -> None:
    """Restrict this process to the first ``count`` CPUs that it may use; no effect where the system cannot pin."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def resident_bytes(root: psutil.Process) -> int:
    """Return the resident memory of a process and its descendants, summed, in bytes."""
    total = 0
    try:
        descendants = root.children(recursive=True)
    except psutil.Error:  # the process has just ended
        return 0
    for process in (root, *descendants):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
