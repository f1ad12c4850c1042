"""Two commands in one folder of a run, and one that is killed: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab


def test_of_two_trainings_one_is_refused_and_a_killed_one_is_gone_on_with(
    finished_run: Path, tiny_data: Path, settings: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "histoedge", "train", "--data", tiny_data, "--out", run, "--config", settings]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    both = [start(), start()]
    while not (over := [process for process in both if process.poll() is not None]):
        time.sleep(0.02)
    (refused,) = over
    (working,) = [process for process in both if process is not refused]
    _, told = refused.communicate()
    assert refused.returncode == 1
    assert told.startswith(f"histoedge: {run}: in use by process {working.pid} on ")
    assert told.count("\n") == 1
    os.kill(working.pid, signal.SIGKILL)
    working.communicate()
    subprocess.run(command, check=True, capture_output=True)
    name = "fp32.weights.h5"
    assert (run / name).read_bytes() == (finished_run / name).read_bytes()
    assert not list(run.glob(".*"))
