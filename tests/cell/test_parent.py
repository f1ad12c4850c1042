"""Both ends of a cell, with real child processes."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from histoedge.cell import EDGE_COMMAND, Cell, CellFailed

CHILD = """
import os, sys
import numpy as np
from histoedge import cell

class Runner:
    runtime, version, kernels = "test", "1", "numpy"
    def predict(self, patches):
        {body}
        return patches[..., 0].mean(axis=(1, 2), dtype=np.float32).reshape(-1, 1, 1, 1)

cell.serve(lambda request: Runner())
"""


def child(body="pass"):
    """Return the command of a child whose runner executes ``body`` in every prediction."""
    return [sys.executable, "-c", CHILD.format(body=body)]


def patches(count, value=7):
    return np.full((count, 96, 96, 3), value, np.uint8)


def test_logits_are_in_order_over_several_chunks(mean_red):
    reds = np.arange(600) % 256
    pixels = np.broadcast_to(reds[:, None, None, None], (600, 96, 96, 3)).astype(np.uint8)
    with Cell() as cell:
        loaded = cell.load(mean_red, runtime="onnxruntime")
        logits = cell.predict(pixels)
        cell.close()
    assert loaded["runtime"] == "onnxruntime"
    assert logits.shape == (600, 1, 1, 1)
    assert logits.dtype == np.float32
    assert logits.reshape(-1) == pytest.approx(reds / 255, abs=1e-5)  # rounding of a sum of 9,216 float32 values


def test_output_of_a_library_does_not_disturb_the_answers():
    with Cell(child('print("hello"); os.write(1, b"from C\\n"); sys.stdout.flush()')) as cell:
        cell.load("any", runtime="test")
        assert cell.predict(patches(3)).reshape(-1).tolist() == [7, 7, 7]


def test_there_is_one_time_per_call(tmp_path):
    np.save(tmp_path / "p.npy", patches(5))
    with Cell(child("assert len(patches) == 2")) as cell:
        cell.load("any", runtime="test", batch=2)
        times, peak, joules = cell.time(tmp_path / "p.npy", n=7, batch=2, start=3, warmup=2)
    assert times.shape == (7,)
    assert (times > 0).all()
    assert peak is None or peak > 1 << 20
    assert joules is None or joules >= 0


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_peak_memory_does_not_include_the_parents(tmp_path):
    np.save(tmp_path / "p.npy", patches(1))
    parents = np.ones(400 << 20, np.uint8)
    with Cell(child()) as cell:
        cell.load("any", runtime="test")
        peak = cell.time(tmp_path / "p.npy", n=1).peak_rss_bytes
    assert peak < parents.nbytes / 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_a_cell_is_pinned_to_as_many_cpus_as_threads():
    with Cell(child('assert os.environ["OMP_NUM_THREADS"] == "1"'), threads=1) as cell:
        loaded = cell.load("any", runtime="test")
        assert (loaded["cpus"], loaded["os_threads"]) == (1, 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_a_cell_is_pinned_before_it_runs_and_its_parent_is_not():
    allowed = os.sched_getaffinity(0)
    program = "import os, sys; sys.exit(f'{len(os.sched_getaffinity(0))} CPUs')"
    with Cell((sys.executable, "-c", program), threads=1) as cell:
        assert os.sched_getaffinity(0) == allowed
        with pytest.raises(CellFailed, match="^1 CPUs$"):
            cell.ask("load")
    with pytest.raises(CellFailed, match="cannot be started"):
        Cell(("/no/such/program",), threads=1)
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux")
def test_threads_of_a_runtime_and_their_cpus_are_counted():
    body = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    with Cell(child(body), threads=1) as cell:
        loaded = cell.load("any", runtime="test")
        assert (loaded["cpus"], loaded["os_threads"]) == (1, 2)
        if len(os.sched_getaffinity(0)) > 1:  # a library that changes its own affinity is detected
            repins = f"import os; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:2]})"
            with Cell(child(repins), threads=1) as other:
                assert other.load("any", runtime="test")["cpus"] == 2


def test_a_call_may_have_larger_fields(tmp_path):
    np.save(tmp_path / "p.npy", np.full((2, 200, 200, 3), 7, np.uint8))
    with Cell(child("assert patches.shape == (3, 200, 200, 3)")) as cell:
        assert cell.load("any", runtime="test", batch=3, field_px=200)["n_outputs"] == 3
        assert cell.time(tmp_path / "p.npy", n=2, batch=3).ms.shape == (2,)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.abort()", "killed by SIGABRT"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL .often because memory ran out"),
        ("raise RuntimeError('out of luck')", "RuntimeError: out of luck"),
        ("os._exit(3)", "exit code 3 and no message"),
        ("import time; time.sleep(60)", "no answer to load within 2 s"),
    ],
)
def test_a_crash_has_a_one_line_reason(body, reason):
    with Cell(child(body), timeout_s=2) as cell:
        with pytest.raises(CellFailed, match=reason) as failure:
            cell.load("any", runtime="test")
        assert "\n" not in failure.value.reason
        with pytest.raises(CellFailed):
            cell.ask("close")


def test_an_answer_that_is_not_json_is_an_error():
    command = [sys.executable, "-c", "input(); print('ready!'); input()"]
    with Cell(command) as cell, pytest.raises(CellFailed, match="'ready!', expected one JSON object"):
        cell.ask("load")


def test_a_missing_program_is_an_error(tmp_path):
    with pytest.raises(CellFailed, match="cannot be started"):
        Cell([str(tmp_path / "missing")])


def test_a_reported_error_leaves_the_cell_usable(mean_red):
    with Cell() as cell:
        with pytest.raises(CellFailed, match="no model is loaded") as failure:
            cell.predict(patches(1))
        assert failure.value.kind == "ModelError"
        with pytest.raises(CellFailed, match="litert does not open onnx") as failure:
            cell.load(mean_red, runtime="litert")
        assert failure.value.kind == "RuntimeUnavailable"
        cell.load(mean_red, runtime="onnxruntime")
        assert cell.predict(patches(1, 102)).reshape(-1) == pytest.approx([102 / 255], abs=1e-5)


def test_a_child_ends_with_its_parent():
    process = subprocess.Popen(EDGE_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.communicate(timeout=30)  # closes stdin, as the end of the parent does
    assert process.returncode == 0


def test_a_child_killed_from_outside_is_reported():
    with Cell(child()) as cell:
        cell.load("any", runtime="test")
        os.kill(cell._process.pid, signal.SIGTERM)
        with pytest.raises(CellFailed, match="killed by SIGTERM"):
            cell.predict(patches(1))
