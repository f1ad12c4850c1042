"""The child's end of the pipe: open one model on one runtime and answer requests line by line."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.cell import energy
from histoedge.cell.protocol import Request, one_line, peak_rss_bytes
from histoedge.edge.errors import HistoedgeError, ModelError
from histoedge.edge.patches import PATCH_PX

PREDICT_BATCH = 32


def serve(open_runner: Callable[[Request], edge.Runner], *, prepare: Callable[[Request], None] | None = None) -> None:
    """Answer requests on stdin until ``close`` or the end of the stream.

    Args:
        open_runner: accepts the ``load`` request and returns the runner of ``request["model"]``; timed as ``load_ms``.
        prepare: accepts the same request and imports the libraries of ``open_runner``; not part of ``load_ms``.

    Call this function before importing a library that prints.
    """
    listen(_Session(open_runner, prepare or (lambda request: None)).answer)


def listen(answer: Callable[[Request], dict[str, Any]]) -> None:
    """Answer the requests on stdin with ``answer`` until ``close``, which it must answer too, or the end of the stream.

    A ``HistoedgeError`` is sent as an error and the loop continues; any other exception ends the process with its
    traceback on stderr.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                fields = answer(request)
            except HistoedgeError as error:
                fields = {"error": one_line(str(error)), "kind": type(error).__name__}
            answers.write(json.dumps(fields, allow_nan=False) + "\n")
            answers.flush()
            if request["op"] == "close":
                return


class _Session:
    """State of one child: its runner and the batches of timed calls."""

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
        side = request.get("field_px", PATCH_PX)
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
            raise ModelError("no model is loaded in this cell; send a load request first")
        return self._runner

    def _time(self, request: Request) -> dict[str, Any]:
        """Time ``n`` calls of ``batch`` patches each after ``warmup`` untimed calls, from batch ``start``."""
        runner = self._opened()
        batches = self._timed_batches(request["patches_npy"], request.get("batch", 1))
        start, warmup, n = request.get("start", 0), request.get("warmup", 0), request["n"]
        for call in range(warmup):
            runner.predict(batches[(start + call) % len(batches)])
        nanoseconds = np.zeros(n, np.int64)
        gc.collect()
        gc.disable()  # a garbage collection during a call would be part of its time
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
        parts = [runner.predict(np.array(patches[start : start + batch])) for start in range(0, len(patches), batch)]
        with open(request["logits_npy"], "wb") as file:
            np.save(file, np.concatenate(parts).astype(np.float32, copy=False))
        return {"n_patches": len(patches)}

    def _close(self, request: Request) -> dict[str, Any]:
        return {"peak_rss_bytes": peak_rss_bytes()}


def cpus_of_threads() -> list[set[int]] | None:
    """Return the CPUs that each thread of this process may use; None if the system does not report them.

    All threads, because a library may pin its threads to other CPUs than those of the process.
    """
    if not hasattr(os, "sched_getaffinity") or not os.path.isdir("/proc/self/task"):
        return None
    cpus = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # the thread has ended
            cpus.append(set(os.sched_getaffinity(int(thread))))
    return cpus


def open_exported(request: Request) -> edge.Runner:
    """Open the exported file of a ``load`` request without a warm-up call, because the first call is measured."""
    runtime, threads = request["runtime"], request["threads"]
    return edge.load(request["model"], runtime=runtime, threads=threads, warm_up=False)
