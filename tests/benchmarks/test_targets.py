"""Files on runtimes, sampled patches, and memory of processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import psutil
import pytest

from histoedge import edge
from histoedge.edge.errors import RuntimeUnavailable

Script = Callable[[str], ModuleType]


def test_a_file_is_paired_with_each_installed_runtime_that_opens_it(script: Script, mean_red: Path) -> None:
    pairs = script("targets").files_on_runtimes([mean_red])
    expected = [row.name for row in edge.RUNTIMES.values() if "onnx" in row.formats and row.installed()]
    assert pairs == [(mean_red, name) for name in expected]
    assert script("targets").labelled(mean_red).endswith(f" {mean_red.name}")


def test_files_that_no_runtime_opens_are_refused(
    script: Script, mean_red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "RUNTIMES", {})
    with pytest.raises(RuntimeUnavailable, match="no installed runtime opens this"):
        script("targets").files_on_runtimes([mean_red])


@pytest.mark.parametrize(("count", "rows"), [(3, [0, 4, 9]), (20, list(range(10)))])
def test_patches_are_spread_evenly_from_the_first_to_the_last(script: Script, count: int, rows: list[int]) -> None:
    split = SimpleNamespace(labels=np.zeros(10), patches=np.arange(10))
    assert script("targets").evenly_spaced(split, count).tolist() == rows


def test_resident_memory_includes_child_processes(script: Script) -> None:
    code = "data = bytearray(b'x' * (64 << 20)); print('ready', flush=True); input()"
    own = psutil.Process(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        resident = script("targets").resident_bytes(own)
        assert resident >= own.memory_info().rss // 2 + (64 << 20)
        child.kill()
