"""One model on one runtime in a process of its own: both ends of the pipe.

A runtime that crashes, leaks or starts threads then harms nobody else, and every peak of memory
belongs to one model. The child (``serve``) reads one JSON request per line on stdin and answers with
one JSON line on stdout; whatever a library prints goes to stderr. The parent (``Cell``) turns a
crash, a silence or an invalid answer into ``CellFailed`` with one line that says why.

Requests: ``load`` {model, runtime, threads, batch, field_px}; ``time`` {patches_npy, n, batch, start, warmup};
``predict`` {patches_npy, logits_npy, batch}; ``close``. Pixels and logits travel as ``.npy`` files;
labels never travel.
"""

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
"""The child that opens exported files through ``histoedge.edge``."""

KERAS_COMMAND = (sys.executable, "-m", "histoedge.lab.reference")
"""The child that opens the source network's weights in Keras."""

SOURCE = "fp32.weights.h5"
"""The source network's weights, in the folder of a run."""
CHUNK_PATCHES = 512  # 14 MB of pixels: what a killed parent may leave in the temporary folder
CLOSE_S = 10.0
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class CellFailed(HistoedgeError):
    """A cell that did not answer: it crashed, was silent too long, refused, or answered nonsense.

    ``kind`` is the class name of the child's deliberate error (``ModelError`` ...), empty otherwise.
    """

    def __init__(self, reason: str, *, kind: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class Times(NamedTuple):
    """What timed calls cost: milliseconds of each (n,), and of the child its peak memory and the energy of all calls.

    ``joules`` is what all CPU packages took meanwhile, whoever used them; None where the machine does not tell.
    """

    ms: np.ndarray
    peak_rss_bytes: int | None
    joules: float | None


class Cell:
    """The parent's side of one child process. Close or kill it, or use it as a context manager (which kills it)."""

    def __init__(self, command: Sequence[str] = EDGE_COMMAND, *, threads: int = 1, timeout_s: float = 600.0) -> None:
        """Start the child, pinned to the first ``threads`` of the CPUs this process may use.

        Args:
            command: the program that calls ``serve``.
            threads: CPUs and library threads that the child gets.
            timeout_s: how long one answer may take, in seconds.

        Raises:
            CellFailed: the program cannot be started.
        """
        self.threads = threads
        self.timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (kill closes it)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            with _pinned(threads):
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=_environment(threads),
                    start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its cells
                )
        except OSError as error:
            self._errors.close()
            raise CellFailed(f"{command[0]} cannot be started ({error.strerror})") from error
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read_lines, args=(self._process.stdout, self._answers), daemon=True)
        self._reader.start()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The child's answer to one request.

        Raises:
            CellFailed: it crashed, did not answer within ``timeout_s``, refused, or answered nonsense. Except
                after a refusal (``kind`` is set) the child is dead afterwards.
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
            raise CellFailed(self._obituary())
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            shown = one_line(line.decode(errors="replace"), 60)
            raise CellFailed(f"answered {op} with {shown!r}, expected one JSON object; stopped")
        if "error" in answer:
            raise CellFailed(answer["error"], kind=answer.get("kind", "HistoedgeError"))
        return answer

    def load(self, model: Path, *, runtime: str, batch: int = 1, field_px: int = PATCH_PX) -> dict[str, Any]:
        """Open ``model`` and make one call of ``batch`` fields: import_ms, load_ms, first_ms, runtime, runtime_version,
        kernels, and after that call ``cpus`` that any thread of the child may use, its ``os_threads``, and
        ``n_outputs``, the logits of the call.

        Raises:
            CellFailed: see ``ask``.
        """
        shape = {"batch": batch, "field_px": field_px}
        return self.ask("load", model=str(model), runtime=runtime, threads=self.threads, **shape)

    def predict(self, patches: Any, *, batch: int = PREDICT_BATCH) -> np.ndarray:
        """Logits float32 (N, h, w, 1) of uint8 (N, H, W, 3) pixels; ``patches`` is an array or anything that slices.

        Raises:
            CellFailed: see ``ask``.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="histoedge-")
        file = Path(self._folder.name) / "patches.npy"
        parts = []
        for at in range(0, len(patches), CHUNK_PATCHES):
            np.save(file, np.asarray(patches[at : at + CHUNK_PATCHES]))
            parts.append(self.predict_file(file, batch=batch))
        return np.concatenate(parts)

    def predict_file(self, patches_npy: Path, *, batch: int = PREDICT_BATCH) -> np.ndarray:
        """As ``predict``, of the pixels in a ``.npy`` file.

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
        """``n`` timed calls of ``batch`` patches or fields each after ``warmup`` untimed ones.

        ``start`` is the batch of the file to begin with; it goes round when the file ends.

        Raises:
            CellFailed: see ``ask``.
        """
        answer = self.ask("time", patches_npy=str(patches_npy), n=n, batch=batch, start=start, warmup=warmup)
        return Times(np.asarray(answer["ms"], np.float64), answer["peak_rss_bytes"], answer["joules"])

    def close(self) -> None:
        """End the child politely; kill it when it does not go. Never raises for what the child does."""
        if self._process.poll() is None:
            self.timeout_s = min(self.timeout_s, CLOSE_S)
            with suppress(CellFailed, subprocess.TimeoutExpired):
                self.ask("close")
                self._process.wait(CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """End the child at once and free what it held. Harmless when it has ended."""
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

    def _obituary(self) -> str:
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its output without an answer; stopped"
        said = "" if self._errors.closed else _last_line(self._errors)
        self.kill()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (often because memory ran out)" if name == "SIGKILL" else ""
            return f"killed by {name}{hint}" + (f": {said}" if said else "")
        return said or f"ended with exit code {code} and said nothing"


@contextmanager
def _pinned(count: int) -> Iterator[None]:
    """Pin this thread to the first ``count`` of the CPUs it may use, for the children that are started meanwhile.

    They inherit it (sched_setaffinity(2)), so that none of their threads can be older than the pinning.
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
    said = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return one_line(said[-1]) if said else ""
