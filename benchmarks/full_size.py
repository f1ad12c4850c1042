"""A run at PatchCamelyon's full size: ``python benchmarks/full_size.py --data DATA --work FOLDER --out F``.

Writes 262,144 training patches (7.2 GB) to FOLDER: those of DATA, PatchCamelyon's files, then copies of them shifted
cyclically by some pixels. Then it runs ``histoedge train`` with the patches read from disk, ``histoedge train`` with
the default ``auto``, and ``histoedge run``, and measures the peak memory of all processes together, the time to the
first step and the whole time. ``--cgroup PATH`` puts ``run`` into an existing control group with a memory limit,
created for instance by ``mkdir /sys/fs/cgroup/he; echo 4G > /sys/fs/cgroup/he/memory.max``.
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

import h5py
import numpy as np
import psutil
from record import Row, run_script, write_record
from targets import resident_bytes

from histoedge import data, memory
from histoedge.benchmark import environment

PATCHES = 2**18
BLOCK = 512
STEM = "camelyonpatch_level_2_split"
SAMPLE_S = 0.2


def write_data(source: Path, out: Path) -> None:
    """Write the data set of full size to ``out``, unless an earlier call has finished it."""
    x_path, y_path = (out / f"{STEM}_train_{part}.h5" for part in ("x", "y"))
    if y_path.is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    train = data.load(str(source), splits=("train",))["train"]
    labels = np.empty(PATCHES, np.uint8)
    with h5py.File(x_path, "w") as file:
        x = file.create_dataset("x", (PATCHES, 96, 96, 3), np.uint8, chunks=(1, 96, 96, 3))
        for start in range(0, PATCHES, BLOCK):
            copies, rows = np.divmod(np.arange(start, start + BLOCK), len(train.labels))
            patches = train.patches[rows]
            for copy in np.unique(copies):
                patches[copies == copy] = np.roll(patches[copies == copy], (3 * copy, 5 * copy), axis=(1, 2))
            x[start : start + BLOCK] = patches
            labels[start : start + BLOCK] = train.labels[rows]
    for split in ("valid", "test"):
        for part in ("x", "y"):
            shutil.copy(source / f"{STEM}_{split}_{part}.h5", out)
    with h5py.File(y_path, "w") as file:
        file["y"] = labels.reshape(-1, 1, 1, 1)


def command_row(name: str, command: Sequence[str], *, cgroup: Path | None = None) -> Row:
    """Run the command and return its row: memory and times. Its output goes to stderr."""

    def enter_cgroup() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=enter_cgroup)
    first_steps: list[float] = []

    def copy_output() -> None:
        for line in process.stderr or ():
            sys.stderr.write(line)
            if "first step" in line:
                first_steps.append(round(time.monotonic() - started, 1))

    listener = threading.Thread(target=copy_output)
    listener.start()
    peak, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, resident_bytes(root))
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


def full_size_command() -> None:
    """Write a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with PatchCamelyon's HDF5 files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the data (7.2 GB) and the runs")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--cgroup", type=Path, help="control group for histoedge run")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    full, runs = arguments.work / "data", arguments.work / "runs"
    write_data(arguments.data, full)
    shutil.rmtree(runs, ignore_errors=True)
    options = ["--data", str(full), "--network", "nano", "--epochs", "1", "--verbose"]
    tool = [sys.executable, "-m", "histoedge"]
    shutil.rmtree(full / ".histoedge", ignore_errors=True)
    from_disk = [*tool, "train", *options, "--out", str(runs / "disk"), "--patches-on", "disk"]
    rows = [
        command_row("train, patches read from disk; digests are computed first", from_disk),
        command_row("train, patches where auto decides", [*tool, "train", *options, "--out", str(runs / "auto")]),
        command_row(
            "run, default recipes", [*tool, "run", *options, "--out", str(runs / "run")], cgroup=arguments.cgroup
        ),
    ]
    write_record(
        arguments.out,
        kind="full size",
        command="python benchmarks/full_size.py --data DATA --work FOLDER --out F --cgroup PATH",
        about=f"{PATCHES:,} training patches, network nano, one epoch. Memory is the largest sum of the resident sets "
        f"of all processes, sampled every {SAMPLE_S} s; shared pages count in each process.",
        machine=machine,
        rows=rows,
    )


if __name__ == "__main__":
    run_script(full_size_command)
