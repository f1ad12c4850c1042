"""The main job at PatchCamelyon's real size: ``python benchmarks/full_size.py --data DATA --work FOLDER --out F``.

Makes 262,144 training patches in FOLDER (7.2 GB) from those of DATA, PatchCamelyon's files: all of them, then again
moved by some pixels, round the edge. Then runs ``histoedge train`` on them, with the patches read from disk and as
``auto`` decides, and the whole ``histoedge run``, and tells how much memory all processes together took at most, when
the first step was done, and how long it took. ``--cgroup PATH`` is a control group with a memory limit, which ``run``
is put into (made before, for instance: ``mkdir /sys/fs/cgroup/he; echo 4G > /sys/fs/cgroup/he/memory.max``).
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from histoedge import data, files, memory
from histoedge.benchmark import environment

PATCHES = 2**18
BLOCK = 512
STEM = "camelyonpatch_level_2_split"
SAMPLE_S = 0.2


def make(source: Path, out: Path) -> None:
    """The data set of full size in ``out``; nothing where it is there."""
    x_path, y_path = (out / f"{STEM}_train_{part}.h5" for part in ("x", "y"))
    if y_path.is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    train = data.load(str(source), splits=("train",))["train"]
    labels = np.empty(PATCHES, np.uint8)
    with h5py.File(x_path, "w") as file:
        x = file.create_dataset("x", (PATCHES, 96, 96, 3), np.uint8, chunks=(1, 96, 96, 3))
        for start in range(0, PATCHES, BLOCK):
            again, rows = np.divmod(np.arange(start, start + BLOCK), len(train.labels))
            patches = train.patches[rows]
            for round_ in np.unique(again):
                moved = np.roll(patches[again == round_], (3 * round_, 5 * round_), axis=(1, 2))
                patches[again == round_] = moved
            x[start : start + BLOCK] = patches
            labels[start : start + BLOCK] = train.labels[rows]
    for split in ("valid", "test"):
        for part in ("x", "y"):
            shutil.copy(source / f"{STEM}_{split}_{part}.h5", out)
    with h5py.File(y_path, "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)


def measured(name: str, command: Sequence[str], *, cgroup: Path | None = None) -> dict[str, Any]:
    """A row: what the command took; its output goes to stderr."""

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=enter)
    first_steps: list[float] = []

    def listen() -> None:
        for line in process.stderr or ():
            sys.stderr.write(line)
            if "first step" in line:
                first_steps.append(round(time.monotonic() - started, 1))

    listener = threading.Thread(target=listen)
    listener.start()
    peak, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident(root))
        time.sleep(SAMPLE_S)
    listener.join()
    return {
        "what": name,
        "memory_limit_gb": None if cgroup is None else round((memory.limit_of(cgroup) or 0) / 1e9, 2),
        "peak_rss_gb": round(peak / 1e9, 2),
        "first_step_s": first_steps[0] if first_steps else None,
        "seconds": round(time.monotonic() - started),
        "exit_code": process.returncode,
    }


def _resident(root: psutil.Process) -> int:
    """Resident bytes of a process and all below it."""
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:  # one of them has just ended
        pass
    return total


def full_size_command() -> None:
    """Write a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cgroup", type=Path)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    full, runs = arguments.work / "data", arguments.work / "runs"
    make(arguments.data, full)
    shutil.rmtree(runs, ignore_errors=True)
    small = ["--data", str(full), "--network", "nano", "--epochs", "1", "--verbose"]
    tool = [sys.executable, "-m", "histoedge"]
    shutil.rmtree(full / ".histoedge", ignore_errors=True)
    first = [*tool, "train", *small, "--out", str(runs / "disk"), "--patches-on", "disk"]
    rows = [
        measured("train, read from disk; digests are made first", first),
        measured("train, as auto decides", [*tool, "train", *small, "--out", str(runs / "auto")]),
        measured("run, default recipes", [*tool, "run", *small, "--out", str(runs / "run")], cgroup=arguments.cgroup),
    ]
    files.write_json(
        arguments.out,
        {
            "format": 1,
            "kind": "full size",
            "about": f"{PATCHES:,} training patches, network nano, one epoch. Memory is the largest sum of resident "
            f"sets of all processes, looked at every {SAMPLE_S} s; pages that processes share count in each.",
            "command": "python benchmarks/full_size.py --data DATA --work FOLDER --out F --cgroup PATH",
            "environment": machine,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    full_size_command()
