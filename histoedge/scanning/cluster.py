"""Compute fields on the workers of a Dask cluster; this process stores the results.

Every worker opens the slide and the model under the same paths as this process, once per thread. A worker thread reads
and computes in turn, so two threads per core keep it busy.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, HistoedgeError, ModelError
from histoedge.scanning import engine
from histoedge.scanning.engine import FieldsJob, Timings
from histoedge.scanning.grid import STRIP, Grid, pixels_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.readers import open_slide

CHUNK = STRIP  # fields per task: neighbours, which share tiles; also the work repeated when a worker is lost
PATIENCE_S = 30.0  # wait for the scheduler's answer, and for its first worker


class ClusterError(HistoedgeError):
    """A cluster that cannot be reached, has no workers, or cannot do the work."""


@dataclass(frozen=True)
class WorkerFiles:
    """The two files that a worker opens, with what identifies them, and how it reads and runs them."""

    slide: Path
    size_bytes: int
    resolutions: tuple[float, float]
    model: Path
    sha256: str
    runtime: str | None
    threads: int


_TaskResult = tuple[list[tuple[int, np.ndarray]], dict[str, float]]

_opened = threading.local()  # per worker thread: the last WorkerFiles with their plane and runner


def compute(job: FieldsJob, *, scheduler: str) -> None:
    """Compute the fields of the job into its unfinished map on the cluster of that scheduler, as ``engine.compute``.

    Of ``job.workers`` only ``threads`` is used: the threads of each interpreter. The tasks of a lost worker run again
    on another one. The first error of any worker stops all tasks and is raised.

    Raises:
        ClusterError: no scheduler answers at that address, it has no workers, or workers die repeatedly.
        DataError, ModelError, RuntimeUnavailable: a worker cannot open the slide or the model, or the slide is damaged.
    """
    if job.numbers:
        run_on_cluster(job, worker_files(job), scheduler=scheduler)


def worker_files(job: FieldsJob) -> WorkerFiles:
    """Return the files that workers open for the same plane and the same model."""
    path = job.plane.slide.path.resolve()
    return WorkerFiles(
        slide=path,
        size_bytes=path.stat().st_size,
        resolutions=job.plane.resolutions,
        model=job.model.resolve(),
        sha256=manifests.read(job.model).sha256,
        runtime=job.runtime,
        threads=job.workers.threads,
    )


def run_on_cluster(job: FieldsJob, opening: WorkerFiles, *, scheduler: str) -> None:
    """Compute the fields of the job on workers that open these files; see ``compute``."""
    import distributed

    chunks = [list(job.numbers[start : start + CHUNK]) for start in range(0, len(job.numbers), CHUNK)]
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise ClusterError(
            f"{scheduler}: no Dask scheduler answers ({error}); start one with dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise ClusterError(f"{scheduler}: no workers; start some with dask worker {scheduler}") from error
        futures = client.map(_compute_chunk, chunks, opening=opening, grid=job.grid, pure=False)
        done = 0
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                results, seconds = _result(future)
                for number, logits in results:
                    job.unfinished.put(number, logits)
                for stage, took in seconds.items():
                    job.timings.add(stage, took)
                done += len(results)
                future.release()
                job.progress(job.label, done, len(job.numbers))
        finally:
            client.cancel([future for future in futures if not future.done()])


def _result(future: Any) -> _TaskResult:
    from distributed import KilledWorker

    try:
        return future.result()  # type: ignore[no-any-return]
    except KilledWorker as error:
        raise ClusterError(f"workers died repeatedly: {str(error).splitlines()[0]}") from error


def _compute_chunk(numbers: list[int], *, opening: WorkerFiles, grid: Grid) -> _TaskResult:
    """Run on a worker: return the fields' numbers and logits, and the seconds of each stage."""
    if getattr(_opened, "files", None) != opening:
        _opened.plane, _opened.runner = _open(opening)
        _opened.files = opening
    timings, results = Timings(), []
    for number in numbers:
        with timings.of("read"):
            pixels = pixels_of(_opened.plane, grid, number)
        with timings.of("infer"):
            results.append((number, _opened.runner.map(pixels)))
    return results, timings.seconds


def _open(opening: WorkerFiles) -> tuple[Plane, edge.ExportedRunner]:
    from distributed import get_worker

    try:
        slide = open_slide(opening.slide)
        if opening.slide.stat().st_size != opening.size_bytes:
            raise DataError(f"{opening.slide}: {opening.slide.stat().st_size} bytes, expected {opening.size_bytes}")
        runner = engine.open_interpreter(opening.model, runtime=opening.runtime, threads=opening.threads)
        if runner.manifest.sha256 != opening.sha256:
            raise ModelError(f"{opening.model}: SHA-256 {runner.manifest.sha256}, expected {opening.sha256}")
    except HistoedgeError as error:
        message = f"worker {get_worker().name}: {error}; every worker must see the same files under the same paths"
        raise type(error)(message) from error
    um_per_px, slide_um_per_px = opening.resolutions
    return Plane(slide, um_per_px=um_per_px, slide_um_per_px=slide_um_per_px), runner
