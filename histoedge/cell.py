"""One model on one runtime in a process of its own: both ends of the pipe.

A runtime that crashes, leaks or starts threads then harms nobody else, and every peak of memory
belongs to one model. The child (``serve``) reads one JSON request per line on stdin and answers with
one JSON line on stdout; whatever a library prints goes to stderr. The parent (``Cell``) turns a
crash, a silence or an invalid answer into ``CellFailed`` with one line that says why.

Requests: ``load`` {model, runtime, threads, batch, field_px}; ``time`` {patches_npy, n, batch, start, warmup};
``predict`` {patches_npy, logits_npy, batch}; ``close``. Pixels and logits travel as ``.npy`` files;
labels never travel.
"""

import gc
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from histoedge import edge, energy
from histoedge.edge.errors import HistoedgeError, ModelError

Request = dict[str, Any]

EDGE_COMMAND = (sys.executable, "-m", "histoedge.cell")
"""The child that opens exported files through ``histoedge.edge``."""

KERAS_COMMAND = (sys.executable, "-m", "histoedge.lab.reference")
"""The child that opens the source network's weights in Keras."""

SOURCE = "fp32.weights.h5"
"""The source network's weights, in the folder of a run."""

PREDICT_BATCH = 32
CHUNK_PATCHES = 512  # 14 MB of pixels: what a killed parent may leave in the temporary folder
CLOSE_S = 10.0
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
INTERPRETER_MODULES = {"ai_edge_litert": "ai_edge_litert.interpreter"}
"""Where importing the package alone loads nothing."""


class CellFailed(HistoedgeError):
    """A cell that did not answer: it crashed, was silent too long, refused, or answered nonsense.

    ``kind`` is the class name of the child's deliberate error (``ModelError`` ...), empty otherwise.
    """

    def __init__(self, reason: str, *, kind: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


# ---------------------------------------------------------------------------------------------------- child


def serve(open_runner: Callable[[Request], edge.Runner], *, prepare: Callable[[Request], None] | None = None) -> None:
    """Answer requests on stdin until ``close`` or the end of the stream.

    Args:
        open_runner: given the ``load`` request, the runner of ``request["model"]``; timed as ``load_ms``.
        prepare: given the same request, imports what ``open_runner`` needs; not part of ``load_ms``.

    Call it before importing a library that prints.
    """
    listen(_Session(open_runner, prepare or (lambda request: None)).answer)


def listen(answer: Callable[[Request], dict[str, Any]]) -> None:
    """Let ``answer`` answer the requests on stdin until ``close``, which it must know too, or the end of the stream.

    A ``HistoedgeError`` is answered as an error and ends nothing; any other exception ends the process
    with its traceback on stderr.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                told = answer(request)
            except HistoedgeError as error:
                told = {"error": one_line(str(error)), "kind": type(error).__name__}
            answers.write(json.dumps(told, allow_nan=False) + "\n")
            answers.flush()
            if request["op"] == "close":
                return


class _Session:
    """The state of one child: its runner and the batches it times."""

    def __init__(self, open_runner: Callable[[Request], edge.Runner], prepare: Callable[[Request], None]) -> None:
        self._open_runner = open_runner
        self._prepare = prepare
        self._runner: edge.Runner | None = None
        self._batches: tuple[tuple[str, int], list[np.ndarray]] = (("", 0), [])

    def answer(self, request: Request) -> dict[str, Any]:
        operations = {"load": self._load, "time": self._time, "predict": self._predict, "close": self._close}
        return operations[request["op"]](request)

    def _load(self, request: Request) -> dict[str, Any]:
        started = time.perf_counter()
        self._prepare(request)
        imported = time.perf_counter()
        self._runner = self._open_runner(request)
        loaded = time.perf_counter()
        side = request.get("field_px", 96)
        noise = np.random.default_rng(0).integers(0, 256, (request.get("batch", 1), side, side, 3), np.uint8)
        before_first = time.perf_counter()
        logits = self._runner.predict(noise)
        after_first = time.perf_counter()
        cpus = cpus_of_threads()
        return {
            "import_ms": 1e3 * (imported - started),
            "load_ms": 1e3 * (loaded - imported),
            "first_ms": 1e3 * (after_first - before_first),
            "runtime": self._runner.runtime,
            "runtime_version": self._runner.version,
            "kernels": self._runner.kernels,
            "cpus": None if cpus is None else len(set().union(*cpus)),
            "os_threads": None if cpus is None else len(cpus),
            "n_outputs": int(logits.size),
        }

    def _opened(self) -> edge.Runner:
        if self._runner is None:
            raise ModelError("no model is loaded in this cell; ask for load first")
        return self._runner

    def _time(self, request: Request) -> dict[str, Any]:
        """``n`` timed calls of ``batch`` patches each, after ``warmup`` untimed ones, from batch ``start`` on."""
        runner = self._opened()
        batches = self._timed_batches(request["patches_npy"], request.get("batch", 1))
        start, warmup, n = request.get("start", 0), request.get("warmup", 0), request["n"]
        for call in range(warmup):
            runner.predict(batches[(start + call) % len(batches)])
        nanoseconds = np.zeros(n, np.int64)
        gc.collect()
        gc.disable()  # a collection inside a call would be charged to the model
        meter = energy.Meter()
        for call in range(n):
            patches = batches[(start + call) % len(batches)]
            before = time.perf_counter_ns()
            runner.predict(patches)
            nanoseconds[call] = time.perf_counter_ns() - before
        joules = meter.joules()
        gc.enable()
        return {"ms": (nanoseconds / 1e6).tolist(), "peak_rss_bytes": peak_rss_bytes(), "joules": joules}

    def _timed_batches(self, path: str, batch: int) -> list[np.ndarray]:
        if self._batches[0] != (path, batch):
            patches = np.load(path, mmap_mode="r", allow_pickle=False)
            count = max(1, len(patches) // batch)
            indices = [np.arange(k * batch, (k + 1) * batch) % len(patches) for k in range(count)]
            self._batches = ((path, batch), [np.ascontiguousarray(patches[rows]) for rows in indices])
        return self._batches[1]

    def _predict(self, request: Request) -> dict[str, Any]:
        runner = self._opened()
        patches = np.load(request["patches_npy"], mmap_mode="r", allow_pickle=False)
        batch = request.get("batch", PREDICT_BATCH)
        parts = [runner.predict(np.array(patches[at : at + batch])) for at in range(0, len(patches), batch)]
        with open(request["logits_npy"], "wb") as file:
            np.save(file, np.concatenate(parts).astype(np.float32, copy=False))
        return {"n_patches": len(patches)}

    def _close(self, request: Request) -> dict[str, Any]:
        return {"peak_rss_bytes": peak_rss_bytes()}


def peak_rss_bytes() -> int | None:
    """The largest resident set of this process so far, in bytes; None where the system does not tell.

    Linux's ``VmHWM``, because ``ru_maxrss`` survives ``exec`` and so still holds the parent's peak (getrusage(2)).
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def cpus_of_threads() -> list[set[int]] | None:
    """The CPUs that each thread of this process may run on; None where the system does not tell.

    All threads, because a library may pin its own ones elsewhere than the process was pinned.
    """
    if not hasattr(os, "sched_getaffinity") or not os.path.isdir("/proc/self/task"):
        return None
    found = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended since
            found.append(set(os.sched_getaffinity(int(thread))))
    return found


# --------------------------------------------------------------------------------------------------- parent


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

    def load(self, model: Path, *, runtime: str, batch: int = 1, field_px: int = 96) -> dict[str, Any]:
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


def one_line(text: str, length: int = 300) -> str:
    """``text`` without line breaks, cut to ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


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


def prepare(request: Request) -> None:
    """Import the library of ``request["runtime"]``, so that doing so is no part of ``load_ms``."""
    row = edge.known().get(request["runtime"])
    if row is not None and row.installed():
        import_module(INTERPRETER_MODULES.get(row.module, row.module))


def _open(request: Request) -> edge.Runner:
    runtime, threads = request["runtime"], request["threads"]
    return edge.load(request["model"], runtime=runtime, threads=threads, warm_up=False)  # the first call is measured


if __name__ == "__main__":
    serve(_open, prepare=prepare)
