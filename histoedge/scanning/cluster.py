"""The same map over many machines: a Dask cluster's workers compute the fields, the caller keeps them.

Every worker sees the slide and the model under the paths that the caller gives. It opens both itself, once for each of
its threads, and reads and computes by turns, so two threads for each core keep it busy.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, HistoedgeError, ModelError
from histoedge.progress import Progress, silent
from histoedge.scanning import engine
from histoedge.scanning.engine import Grid, Timings, Unfinished, Workers
from histoedge.scanning.plane import Plane
from histoedge.scanning.slide import open_slide

CHUNK = engine.STRIP  # fields in a task: neighbours, that share tiles; seconds of work that a lost worker loses
PATIENCE_S = 30.0  # for the scheduler to answer, and for its first worker


class ClusterError(HistoedgeError):
    """A cluster that cannot be reached, has no workers, or cannot do the work."""


@dataclass(frozen=True)
class ClusterJob:
    """What a worker must open: two files, and what the caller found in them."""

    slide: Path
    size_bytes: int
    resolutions: tuple[float, float]
    model: Path
    sha256: str
    runtime: str | None
    threads: int


_Found = tuple[list[tuple[int, np.ndarray]], dict[str, float]]

_opened = threading.local()  # of each of a worker's threads: its last job with plane and runner


def compute(
    plane: Plane,
    model: Path,
    unfinished: Unfinished,
    grid: Grid,
    numbers: Sequence[int],
    *,
    scheduler: str,
    runtime: str | None,
    workers: Workers,
    timings: Timings,
    progress: Progress = silent,
    what: str = "scan, fields",
) -> None:
    """Compute these fields into the unfinished map, as ``engine.compute`` does, on the cluster of that scheduler.

    Of ``workers``, ``threads`` counts alone: those of each interpreter. What a worker had in hand when it was lost is
    done again by another. The first error of any worker ends all and is raised.

    Raises:
        ClusterError: no scheduler answers at that address, it has no workers, or workers die again and again.
        DataError, ModelError, RuntimeUnavailable: a worker cannot open the slide or the model, or the slide is damaged.
    """
    if numbers:
        job = job_of(plane, model, runtime=runtime, threads=workers.threads)
        run_on_cluster(
            job, unfinished, grid, numbers, scheduler=scheduler, timings=timings, progress=progress, what=what
        )


def job_of(plane: Plane, model: Path, *, runtime: str | None, threads: int) -> ClusterJob:
    """What workers need to see the same plane and ask the same model."""
    path = plane.slide.path.resolve()
    sha256 = manifests.read(model).sha256
    return ClusterJob(path, path.stat().st_size, plane.told, model.resolve(), sha256, runtime, threads)


def run_on_cluster(
    job: ClusterJob,
    unfinished: Unfinished,
    grid: Grid,
    numbers: Sequence[int],
    *,
    scheduler: str,
    timings: Timings,
    progress: Progress = silent,
    what: str = "scan, fields",
) -> None:
    """Let the cluster compute these fields; see ``compute``."""
    import distributed

    chunks = [list(numbers[start : start + CHUNK]) for start in range(0, len(numbers), CHUNK)]
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
            raise ClusterError(f"{scheduler}: has no workers; start some with dask worker {scheduler}") from error
        futures = client.map(_computed, chunks, job=job, grid=grid, pure=False)
        done = 0
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                found, seconds = _result(future)
                for number, logits in found:
                    unfinished.put(number, logits)
                for stage, took in seconds.items():
                    timings.add(stage, took)
                done += len(found)
                future.release()
                progress(what, done, len(numbers))
        finally:
            client.cancel([future for future in futures if not future.done()])


def _result(future: Any) -> _Found:
    from distributed import KilledWorker

    try:
        return future.result()  # type: ignore[no-any-return]
    except KilledWorker as error:
        raise ClusterError(f"workers died again and again: {str(error).splitlines()[0]}") from error


def _computed(numbers: list[int], *, job: ClusterJob, grid: Grid) -> _Found:
    """On a worker: fields with their logits, and the seconds of each stage."""
    if getattr(_opened, "job", None) != job:
        _opened.plane, _opened.runner = _open(job)
        _opened.job = job
    timings, found = Timings(), []
    for number in numbers:
        with timings.of("read"):
            pixels = engine.pixels_of(_opened.plane, grid, number)
        with timings.of("infer"):
            found.append((number, _opened.runner.map(pixels)))
    return found, timings.seconds


def _open(job: ClusterJob) -> tuple[Plane, edge.ExportedRunner]:
    from distributed import get_worker

    try:
        slide = open_slide(job.slide)
        if job.slide.stat().st_size != job.size_bytes:
            raise DataError(f"{job.slide}: {job.slide.stat().st_size} bytes, expected {job.size_bytes}")
        runner = engine.open_interpreter(job.model, runtime=job.runtime, threads=job.threads)
        if runner.manifest.sha256 != job.sha256:
            raise ModelError(f"{job.model}: another model than the one that was asked for")
    except HistoedgeError as error:
        message = f"worker {get_worker().name}: {error}; every worker must see the same files under the same paths"
        raise type(error)(message) from error
    um_per_px, slide_um_per_px = job.resolutions
    return Plane(slide, um_per_px=um_per_px, slide_um_per_px=slide_um_per_px), runner
