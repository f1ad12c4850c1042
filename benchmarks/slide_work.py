"""The work on a slide that ``slide_speed.py`` times: reading, inference, both at once, in threads and in processes."""

import queue
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge
from histoedge.edge import manifest as manifests
from histoedge.scanning import FIELD_PX, engine, plane, tissue
from histoedge.scanning.engine import FieldsJob, Timings, Workers
from histoedge.scanning.grid import STRIP, Grid, grid_of, pixels_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.readers import open_slide
from histoedge.scanning.unfinished import Unfinished

PROCESS_REPETITIONS = 3


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the duration of a call."""
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


@dataclass(frozen=True)
class SlideTask:
    """A model on a runtime, the slide it scans, and the slide's assumed um per px (None: that of its metadata)."""

    path: Path
    model: Path
    runtime: str
    um_per_px: float | None = None

    def fresh_plane(self) -> Plane:
        """Open the slide again: nothing that was read before is in its cache."""
        return plane.of_model(open_slide(self.path), manifests.read(self.model).um_per_px, self.um_per_px)

    def tissue_fields(self, field_px: int = FIELD_PX) -> tuple[Plane, Grid, list[int]]:
        """Return a fresh plane, its grid of fields and the numbers of the fields with tissue."""
        opened = self.fresh_plane()
        manifest = manifests.read(self.model)
        grid = grid_of(opened, manifest, field_px)
        per_square = tissue.pixels_per_square(grid.step_px, manifest.um_per_px)
        coarser = grid.step_px / per_square
        mask = tissue.mask(tissue.overview(opened, coarser), opened.um_per_px * coarser)
        return opened, grid, grid.fields(tissue.squares(mask, grid, per_square))

    def infer(self, fields: Iterable[np.ndarray], interpreters: int) -> None:
        """Open the model and compute fields that are in memory."""
        runners: queue.SimpleQueue[edge.ExportedRunner] = queue.SimpleQueue()
        for _ in range(interpreters):
            runners.put(engine.open_interpreter(self.model, runtime=self.runtime))

        def compute(pixels: np.ndarray) -> None:
            runner = runners.get()
            runner.map(pixels)
            runners.put(runner)

        with ThreadPoolExecutor(interpreters) as threads:
            for _ in threads.map(compute, fields):
                pass

    def read_and_infer(self, opened: Plane, grid: Grid, numbers: Sequence[int], workers: Workers) -> None:
        """Read and compute fields into a map that is discarded."""
        with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
            job = FieldsJob(
                plane=opened,
                model=self.model,
                grid=grid,
                numbers=numbers,
                unfinished=Unfinished(Path(folder), grid, {}),
                workers=workers,
                timings=Timings(),
                runtime=self.runtime,
            )
            engine.compute(job)

    def seconds_in_processes(self, numbers: Sequence[int], count: int) -> list[float]:
        """Return the durations of reading and computing fields in ``count`` processes that have opened everything."""
        chunks = [numbers[start : start + STRIP] for start in range(0, len(numbers), STRIP)]
        with ProcessPoolExecutor(count, get_context("spawn"), _open_in_process, (self,)) as processes:
            list(processes.map(_compute_in_process, [numbers[:1]] * 4 * count))  # starts all processes
            return [
                seconds_of(lambda: list(processes.map(_compute_in_process, chunks))) for _ in range(PROCESS_REPETITIONS)
            ]


def read_fields(opened: Plane, grid: Grid, numbers: Iterable[int], readers: int) -> None:
    """Read fields and discard them."""
    with ThreadPoolExecutor(readers) as threads:
        for _ in threads.map(lambda number: pixels_of(opened, grid, number).shape, numbers):
            pass


_OPENED: tuple[Plane, Grid, edge.ExportedRunner]


def _open_in_process(task: SlideTask) -> None:
    """Open slide and model in a child process, for ``_compute_in_process``."""
    global _OPENED
    opened = task.fresh_plane()
    grid = grid_of(opened, manifests.read(task.model), FIELD_PX)
    _OPENED = opened, grid, engine.open_interpreter(task.model, runtime=task.runtime)


def _compute_in_process(numbers: Sequence[int]) -> int:
    opened, grid, runner = _OPENED
    return len([runner.map(pixels_of(opened, grid, number)) for number in numbers])
