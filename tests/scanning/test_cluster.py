"""A scan on a Dask cluster of real processes equals a local scan, also when a worker is killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, ModelError
from histoedge.scanning import Scan, Workers, plane, scan
from histoedge.scanning.engine import FieldsJob, Timings
from histoedge.scanning.grid import grid_of
from histoedge.scanning.readers import open_slide
from histoedge.scanning.slidemap import SlideMap
from histoedge.scanning.unfinished import Unfinished

pytest.importorskip("distributed")

from histoedge.scanning import cluster

WriteSlide = Callable[..., Path]


@contextlib.contextmanager
def dask(*arguments: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """``python -m dask ...`` and the first address it prints; killed at the end."""
    command = [sys.executable, "-m", "dask", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "tcp://" in line)
            yield process, "tcp://" + line.partition("tcp://")[2].split()[0]
        finally:
            process.kill()


@pytest.fixture
def scheduler() -> Iterator[str]:
    with dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard") as (_, address):
        yield address


@contextlib.contextmanager
def worker(scheduler: str, folder: Path) -> Iterator[int]:
    """A worker of one process; yields its process id."""
    options = ("--nthreads", "2", "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
    with dask("worker", scheduler, *options) as (process, _):
        yield process.pid


@pytest.fixture
def slide(write_slide: WriteSlide, texture: Callable[[int, int], np.ndarray]) -> Path:
    return write_slide(texture(1500, 1700), um_per_px=0.6)


def scan_map(path: Path, model: Path, folder: Path, **options: object) -> SlideMap:
    settings = Scan(mask=False, field_px=256)
    slide_map, *_ = scan(path, model, folder, settings=settings, workers=Workers(readers=1, interpreters=1), **options)
    return slide_map


def test_the_map_is_the_same_when_one_of_two_workers_is_killed(
    slide: Path, mean_red: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CHUNK", 1)  # many tasks on a small slide
    expected = scan_map(slide, mean_red, tmp_path / "alone").logits
    left: list[int] = []
    with worker(scheduler, tmp_path) as first, worker(scheduler, tmp_path):

        def kill_first_worker(what: str, done: int, total: int, note: str = "") -> None:
            if not left:
                os.kill(first, signal.SIGKILL)
            left.append(total - done)

        slide_map = scan_map(slide, mean_red, tmp_path / "cluster", scheduler=scheduler, progress=kill_first_worker)
    assert slide_map.logits.tobytes() == expected.tobytes()
    assert left == list(range(len(left) - 1, -1, -1))
    assert len(left) > 20


def test_timings_include_the_seconds_of_workers(slide: Path, mean_red: Path, tmp_path: Path, scheduler: str) -> None:
    settings, workers = Scan(mask=False), Workers(readers=1, interpreters=1)
    with worker(scheduler, tmp_path):
        _, timings, _ = scan(slide, mean_red, tmp_path / "out", settings=settings, workers=workers, scheduler=scheduler)
    assert timings.seconds["read"] > 0
    assert timings.seconds["infer"] > 0


@pytest.mark.parametrize("change", ["another slide", "no slide", "another model"])
def test_a_worker_with_other_files_is_an_error(
    slide: Path, mean_red: Path, mean_red_int8: Path, tmp_path: Path, scheduler: str, change: str
) -> None:
    slide_plane = plane.of_model(open_slide(slide), 0.972, None)
    grid = grid_of(slide_plane, manifests.read(mean_red), 256)
    job = FieldsJob(
        plane=slide_plane,
        model=mean_red,
        grid=grid,
        numbers=[0],
        unfinished=Unfinished(tmp_path / "out", grid, {}),
        workers=Workers(readers=1, interpreters=1),
        timings=Timings(),
    )
    opening = cluster.worker_files(job)
    if change == "another slide":
        slide.write_bytes(slide.read_bytes() + b"more")
    elif change == "no slide":
        slide.unlink()
    else:
        opening = replace(opening, sha256=manifests.read(mean_red_int8).sha256)
    message = r"^worker .*(slide.tif|mean_red.onnx): .*; every worker must see the same files under the same paths$"
    with worker(scheduler, tmp_path), pytest.raises((DataError, ModelError), match=message):
        cluster.run_on_cluster(job, opening, scheduler=scheduler)


def test_a_scheduler_without_workers_is_an_error(
    slide: Path, mean_red: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    with pytest.raises(cluster.ClusterError, match=r"no workers; start some with dask worker tcp://127"):
        scan_map(slide, mean_red, tmp_path / "out", scheduler=scheduler)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere://x", ""])
def test_a_scheduler_that_does_not_answer_is_a_one_line_error(
    slide: Path, mean_red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    with pytest.raises(
        cluster.ClusterError, match=r"no Dask scheduler answers .*; start one with dask scheduler"
    ) as error:
        scan_map(slide, mean_red, tmp_path / "out", scheduler=address)
    assert "\n" not in str(error.value)
