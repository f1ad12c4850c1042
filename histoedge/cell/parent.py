"""The parent's end of the pipe: start a child process, send requests, return answers or ``CellFailed``."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from histoedge.cell.child import PREDICT_BATCH
from histoedge.cell.protocol import one_line
from histoedge.edge.errors import HistoedgeError
from histoedge.edge.patches import PATCH_PX

EDGE_COMMAND = (sys.executable, "-m", "histoedge.cell")
"""Command of the child that opens exported files with ``histoedge.edge``."""

KERAS_COMMAND = (sys.executable, "-m", "histoedge.lab.reference")
"""Command of the child that opens the source network's weights in Keras."""

SOURCE = "fp32.weights.h5"
"""File name of the source network's weights in a run."""
CHUNK_PATCHES = 512  # 14 MB of pixels: the most that a killed parent leaves in the temporary folder
CLOSE_S = 10.0
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class CellFailed(HistoedgeError):
    """A request without a valid answer: the child crashed, timed out, reported an error or sent an invalid line.

    ``kind`` is the class name of an error reported by the child (``ModelError`` ...), otherwise empty.
    """

    def __init__(self, reason: str, *, kind: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class Times(NamedTuple):
    """Milliseconds of each timed call (n,), the child's peak memory in bytes, and the energy of all calls in joules.

    ``joules`` is the energy of all CPU packages during the calls, other processes included; None if the machine does
    not report it.
    """

    ms: np.ndarray
    peak_rss_bytes: int | None
    joules: float | None


class Cell:
    """One child process. Close or kill it, or use it as a context manager, which kills it at the end."""

    def __init__(self, command: Sequence[str] = EDGE_COMMAND, *, threads: int = 1, timeout_s: float = 600.0) -> None:
        """Start the child, pinned to the first ``threads`` CPUs that this process may use.

        Args:
            command: a program that calls ``serve``.
            threads: number of CPUs and of library threads of the child.
            timeout_s: timeout of each answer, in seconds.

        Raises:
            CellFailed: the program cannot be started.
        """
        self.threads = threads
        self.timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            with _pinned(threads):
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=_environment(threads),
                    start_new_session=True,  # Ctrl-C reaches only the parent, which then ends its cells
                )
        except OSError as error:
            self._errors.close()
            raise CellFailed(f"{command[0]} cannot be started ({error.strerror})") from error
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read_lines, args=(self._process.stdout, self._answers), daemon=True)
        self._reader.start()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return the child's answer.

        Raises:
            CellFailed: the child crashed, did not answer within ``timeout_s``, reported an error or sent an invalid
                line. After a reported error (``kind`` is set) the child still runs; otherwise it is dead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=self.timeout_s)
        except (BrokenPipeError, ValueError):  # ValueError: the pipe was closed by kill
            line = b""
        except queue.Empty:
            self.kill()
            raise CellFailed(f"no answer to {op} within {self.timeout_s:g} s; stopped") from None
        except BaseException:
            self.kill()
            raise
        if not line.endswith(b"\n"):
            raise CellFailed(self._exit_reason())
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            excerpt = one_line(line.decode(errors="replace"), 60)
            raise CellFailed(f"answered {op} with {excerpt!r}, expected one JSON object; stopped")
        if "error" in answer:
            raise CellFailed(answer["error"], kind=answer.get("kind", "HistoedgeError"))
        return answer

    def load(self, model: Path, *, runtime: str, batch: int = 1, field_px: int = PATCH_PX) -> dict[str, Any]:
        """Open ``model`` and make one call with ``batch`` fields.

        Returns:
            import_ms, load_ms, first_ms, runtime, runtime_version, kernels; after the call also ``cpus``, the number of
            CPUs that any thread of the child may use, ``os_threads`` of the child, and ``n_outputs``, the number of
            logits of the call.

        Raises:
            CellFailed: see ``ask``.
        """
        shape = {"batch": batch, "field_px": field_px}
        return self.ask("load", model=str(model), runtime=runtime, threads=self.threads, **shape)

    def predict(self, patches: Any, *, batch: int = PREDICT_BATCH) -> np.ndarray:
        """Return logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels, an array or an object with array slicing.

        Raises:
            CellFailed: see ``ask``.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="histoedge-")
        file = Path(self._folder.name) / "patches.npy"
        parts = []
        for start in range(0, len(patches), CHUNK_PATCHES):
            np.save(file, np.asarray(patches[start : start + CHUNK_PATCHES]))
            parts.append(self.predict_file(file, batch=batch))
        return np.concatenate(parts)

    def predict_file(self, patches_npy: Path, *, batch: int = PREDICT_BATCH) -> np.ndarray:
        """Return the logits of the pixels in a ``.npy`` file, as ``predict``.

        Raises:
            CellFailed: see ``ask``.
        """
        logits = patches_npy.with_name(f"{patches_npy.stem}.{self._process.pid}.logits.npy")
        try:
            self.ask("predict", patches_npy=str(patches_npy), logits_npy=str(logits), batch=batch)
            return np.asarray(np.load(logits, allow_pickle=False))
        finally:
            logits.unlink(missing_ok=True)

    def time(self, patches_npy: Path, *, n: int, batch: int = 1, start: int = 0, warmup: int = 0) -> Times:
        """Time ``n`` calls of ``batch`` patches or fields each after ``warmup`` untimed calls.

        ``start`` is the first batch of the file to use; the first batch follows the last.

        Raises:
            CellFailed: see ``ask``.
        """
        answer = self.ask("time", patches_npy=str(patches_npy), n=n, batch=batch, start=start, warmup=warmup)
        return Times(np.asarray(answer["ms"], np.float64), answer["peak_rss_bytes"], answer["joules"])

    def close(self) -> None:
        """Ask the child to end, then kill it if it does not. Never raises an error of the child."""
        if self._process.poll() is None:
            self.timeout_s = min(self.timeout_s, CLOSE_S)
            with suppress(CellFailed, subprocess.TimeoutExpired):
                self.ask("close")
                self._process.wait(CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """Kill the child and release its pipes and files; of an ended child, only release them."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "Cell":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _exit_reason(self) -> str:
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its output without an answer; stopped"
        last_line = "" if self._errors.closed else _last_line(self._errors)
        self.kill()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (often because memory ran out)" if name == "SIGKILL" else ""
            return f"killed by {name}{hint}" + (f": {last_line}" if last_line else "")
        return last_line or f"ended with exit code {code} and no message"


@contextmanager
def _pinned(count: int) -> Iterator[None]:
    """Pin this thread to the first ``count`` CPUs it may use, for children started inside the block.

    Children inherit the affinity (sched_setaffinity(2)): all of their threads start after the pinning.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _environment(threads: int) -> dict[str, str]:
    pinned = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **pinned, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUTF8": "1"}


def _read_lines(stream: IO[bytes], lines: "queue.SimpleQueue[bytes]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _last_line(file: IO[bytes]) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 8192))
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""
