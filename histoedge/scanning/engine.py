"""Compute fields in this process: some threads read pixels while others run the model."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cpus, edge
from histoedge.edge import manifest as manifests
from histoedge.progress import Progress, silent
from histoedge.scanning.grid import Grid, pixels_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.unfinished import Unfinished

AHEAD = 4  # fields in memory per interpreter, being read, waiting or computed: enough to hide a slow read


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The threads of a scan: ``readers``, and ``interpreters`` of the model with ``threads`` threads each."""

    readers: int
    interpreters: int
    threads: int = 1

    @staticmethod
    def of_machine() -> "Workers":
        """Return one reader per core that this process may use and half as many interpreters, but two on two cores.

        If the slide has the model's resolution, inference takes longer than reading. If pixels are resampled, inference
        waits for reading and all cores read (``benchmarks/slide_speed.py``).
        """
        return Workers.of_cores(cpus.usable())

    @staticmethod
    def of_cores(cores: int) -> "Workers":
        """Return the workers that keep ``cores`` cores busy."""
        return Workers(readers=cores, interpreters=max(min(2, cores), cores // 2))


@dataclass
class Timings:
    """Seconds of work by stage, summed over threads, which overlap; any thread may add to them."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time the block and add its seconds to the stage."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - before)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to the stage."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True, kw_only=True)
class FieldsJob:
    """Fields of one slide to compute: ``numbers`` of the fields, and where their logits, seconds and progress go.

    ``progress`` is called with ``label``, the fields done and their total. ``runtime`` None is the first installed.
    """

    plane: Plane
    model: Path
    grid: Grid
    numbers: Sequence[int]
    unfinished: Unfinished
    workers: Workers
    timings: Timings
    runtime: str | None = None
    progress: Progress = silent
    label: str = "scan, fields"


def compute(job: FieldsJob) -> None:
    """Compute the fields of the job into its unfinished map.

    At most ``AHEAD`` fields per interpreter are in memory. The first error of any thread stops all threads and is
    raised.

    Raises:
        DataError: the slide is damaged.
        ModelError, RuntimeUnavailable: the model cannot be opened.
    """
    if not job.numbers:
        return
    runners = [
        open_interpreter(job.model, runtime=job.runtime, threads=job.workers.threads)
        for _ in range(job.workers.interpreters)
    ]
    unread: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in job.numbers:
        unread.put(number)
    memory = threading.Semaphore(AHEAD * job.workers.interpreters)
    pixels_queue: queue.SimpleQueue[tuple[int, np.ndarray] | None] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[int, np.ndarray] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def read() -> None:
        while memory.acquire() and not stop.is_set():
            try:
                number = unread.get_nowait()
            except queue.Empty:
                return
            with job.timings.of("read"):
                pixels = pixels_of(job.plane, job.grid, number)
            pixels_queue.put((number, pixels))

    def infer(runner: edge.ExportedRunner) -> None:
        while (item := pixels_queue.get()) is not None and not stop.is_set():
            number, pixels = item
            with job.timings.of("infer"):
                logits = runner.map(pixels)
            results.put((number, logits))

    def report_errors(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # raised by the caller's thread
            results.put(error)

    threads = [threading.Thread(target=report_errors, args=(read,), daemon=True) for _ in range(job.workers.readers)]
    threads += [threading.Thread(target=report_errors, args=(infer, runner), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        for done in range(1, len(job.numbers) + 1):
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            job.unfinished.put(*result)
            memory.release()
            job.progress(job.label, done, len(job.numbers))
    finally:
        stop.set()
        memory.release(job.workers.readers)
        for _ in runners:
            pixels_queue.put(None)
        for thread in threads:
            thread.join()


def open_interpreter(model: Path, *, runtime: str | None, threads: int = 1) -> edge.ExportedRunner:
    """Open a runner whose map of a field has one logit per square.

    Raises:
        ModelError, RuntimeUnavailable: see ``edge.load``.
    """
    return edge.load(model, runtime=runtime, threads=threads, step_px=manifests.read(model).label_px)
