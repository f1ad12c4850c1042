"""Two trainings in one folder, and one that is killed: real processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab


def test_of_two_trainings_one_is_refused_and_a_killed_one_resumes(
    tiny_data: Path, small_settings: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    def arguments(out: Path) -> list[object]:
        return ["train", "--data", tiny_data, "--out", out, "--config", small_settings, "--epochs", 12]

    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [sys.executable, "-m", "histoedge", *map(str, arguments(run))]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    both = [start(), start()]
    while not (ended := [process for process in both if process.poll() is not None]):
        time.sleep(0.02)
    (refused,) = ended
    (working,) = [process for process in both if process is not refused]
    _, message = refused.communicate()
    assert refused.returncode == 1
    assert message.startswith(f"histoedge: {run}: in use by process {working.pid} on ")
    assert message.count("\n") == 1
    working.kill()
    working.communicate()
    assert working.returncode == -signal.SIGKILL
    for out in (run, whole):
        assert invoke(*arguments(out)).exit_code == 0
    assert (run / "fp32.weights.h5").read_bytes() == (whole / "fp32.weights.h5").read_bytes()
    assert not list(run.glob(".*"))
