"""From a slide to its map: fields with exactly the overlap that the network needs, read and computed at the same time.

Every field is as large as every other, so an interpreter prepares for one shape; neighbours share the pixels that a
patch has beyond its middle. A verdict is the one its own patch would get, whatever field it was computed in.
"""

import json
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import cpus, edge, files
from histoedge.edge import Manifest
from histoedge.edge.errors import ConfigError, DataError
from histoedge.progress import Progress, silent
from histoedge.scanning.plane import Plane
from histoedge.scanning.slidemap import STEP_PX

STATE = "state"  # of an unfinished map: its folder
LOGITS, DONE = "logits.npy", "done.npy"  # there: the squares, and which fields are kept
AHEAD = 4  # fields in memory for each interpreter, read or waiting or computed: enough to hide a slow read
STRIP = 8  # fields: so wide are the strips that a slide is walked in, and what their rows share is read once


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How much runs at once: threads that read, and interpreters of ``threads`` threads each."""

    readers: int
    interpreters: int
    threads: int = 1

    @staticmethod
    def of_machine() -> "Workers":
        """As many readers as cores that this process may use, and half as many interpreters, but two of two cores.

        Where pixels are as scanned, inference takes longer than reading, but not where they are resampled: then it
        waits, and all cores read (``benchmarks/slide_speed.py``).
        """
        return Workers.of_cores(cpus.usable())

    @staticmethod
    def of_cores(cores: int) -> "Workers":
        """What keeps so many cores busy."""
        return Workers(readers=cores, interpreters=max(min(2, cores), cores // 2))


@dataclass(frozen=True)
class Grid:
    """The squares of a plane, and the fields they are computed in. ``rows`` and ``columns`` count squares."""

    rows: int
    columns: int
    per_field: int

    @property
    def field_px(self) -> int:
        """Side of a field in pixels: its squares, and a square more on each side."""
        return (self.per_field + 2) * STEP_PX

    @property
    def field_columns(self) -> int:
        """Fields side by side."""
        return -(-self.columns // self.per_field)

    def fields(self, wanted: np.ndarray) -> list[int]:
        """The numbers of the fields that hold a wanted square, of bool (rows, columns), strip by strip."""
        down, across = -(-self.rows // self.per_field), self.field_columns
        padded = np.zeros((down * self.per_field, across * self.per_field), bool)
        padded[: self.rows, : self.columns] = wanted
        held = padded.reshape(down, self.per_field, across, self.per_field).any(axis=(1, 3))
        return sorted(map(int, np.flatnonzero(held)), key=self._place_in_strips)

    def _place_in_strips(self, number: int) -> tuple[int, int, int]:
        row, column = divmod(number, self.field_columns)
        return column // STRIP, row, column

    def window(self, number: int) -> tuple[slice, slice]:
        """The squares of a field: its rows and columns of the map."""
        top, left = (self.per_field * at for at in divmod(number, self.field_columns))
        return slice(top, min(top + self.per_field, self.rows)), slice(left, min(left + self.per_field, self.columns))


def grid_of(plane: Plane, manifest: Manifest, field_px: int) -> Grid:
    """The squares whose patches lie on the plane, in fields of at most ``field_px``.

    Raises:
        ConfigError: the network's stride does not divide a square, or the field is smaller than a patch.
        DataError: the plane is smaller than a patch.
    """
    if STEP_PX % manifest.stride_px or manifest.patch_px != 3 * STEP_PX:
        raise ConfigError(f"the model answers every {manifest.stride_px} px; a scan needs a divisor of {STEP_PX}")
    if field_px < manifest.patch_px:
        raise ConfigError(f"a field of {field_px} px is smaller than a patch of {manifest.patch_px} px")
    if min(plane.width, plane.height) < manifest.patch_px:
        raise DataError(
            f"{plane.slide.path}: {plane.width} x {plane.height} px at {plane.um_per_px:.4g} um per px; expected at "
            f"least {manifest.patch_px} x {manifest.patch_px}"
        )
    rows, columns = ((side - manifest.patch_px) // STEP_PX + 1 for side in (plane.height, plane.width))
    return Grid(rows, columns, per_field=(field_px - manifest.patch_px) // STEP_PX + 1)


def pixels_of(plane: Plane, grid: Grid, number: int) -> np.ndarray:
    """The pixels of a field, uint8 (field_px, field_px, 3); white beyond the slide.

    Raises:
        DataError: the slide is damaged.
    """
    rows, columns = grid.window(number)
    return plane.read(columns.start * STEP_PX, rows.start * STEP_PX, grid.field_px, grid.field_px)


def open_interpreter(model: Path, *, runtime: str | None, threads: int = 1) -> edge.ExportedRunner:
    """A runner whose map of a field holds one logit per square.

    Raises:
        ModelError, RuntimeUnavailable: see ``edge.load``.
    """
    return edge.load(model, runtime=runtime, threads=threads, step_px=STEP_PX)


@dataclass
class Timings:
    """Seconds of work by stage, summed over threads, which overlap; any thread may add to them."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add what the block takes."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - before)

    def add(self, stage: str, seconds: float) -> None:
        """Add these seconds."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class Unfinished:
    """A map on disk while it is made: squares first, then the mark of the field, so that a kill loses fields only."""

    def __init__(self, folder: Path, grid: Grid, inputs: dict[str, Any]) -> None:
        self._folder = folder / STATE
        told = self._folder / "inputs.json"
        if not told.is_file() or json.loads(told.read_bytes()) != json.loads(json.dumps(inputs)):
            shutil.rmtree(self._folder, ignore_errors=True)
            files.make_folder(self._folder)
            logits = np.full((grid.rows, grid.columns), np.nan, np.float32)
            np.save(self._folder / LOGITS, logits)
            np.save(self._folder / DONE, np.zeros(grid.field_columns * -(-grid.rows // grid.per_field), bool))
            files.write_json(told, inputs)  # last: without it the others do not count
        self.logits = self._open(LOGITS)
        self.done = self._open(DONE)
        self._grid = grid

    def _open(self, name: str) -> np.ndarray:
        path = self._folder / name
        opened: np.ndarray = np.load(path, mmap_mode="r+", allow_pickle=False)
        return opened

    def put(self, number: int, logits: np.ndarray) -> None:
        """Keep a field's squares: float32, at least as many as it has on the map."""
        rows, columns = self._grid.window(number)
        self.logits[rows, columns] = logits[: rows.stop - rows.start, : columns.stop - columns.start]
        self.done[number] = True


def discard(folder: Path) -> None:
    """Forget the unfinished map of that folder: it is written elsewhere."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def compute(
    plane: Plane,
    model: Path,
    unfinished: Unfinished,
    grid: Grid,
    numbers: Sequence[int],
    *,
    runtime: str | None,
    workers: Workers,
    timings: Timings,
    progress: Progress = silent,
    what: str = "scan, fields",
) -> None:
    """Compute these fields into the unfinished map: some threads read, others ask the model.

    At most ``AHEAD`` fields for each interpreter are in memory. The first error of any thread ends all of them and is
    raised.

    Raises:
        DataError: the slide is damaged.
        ModelError, RuntimeUnavailable: the model cannot be opened.
    """
    if not numbers:
        return
    runners = [open_interpreter(model, runtime=runtime, threads=workers.threads) for _ in range(workers.interpreters)]
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        todo.put(number)
    room = threading.Semaphore(AHEAD * workers.interpreters)
    read: queue.SimpleQueue[tuple[int, np.ndarray] | None] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[int, np.ndarray] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def reading() -> None:
        while room.acquire() and not stop.is_set():
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            with timings.of("read"):
                pixels = pixels_of(plane, grid, number)
            read.put((number, pixels))

    def inferring(runner: edge.ExportedRunner) -> None:
        while (found := read.get()) is not None and not stop.is_set():
            number, pixels = found
            with timings.of("infer"):
                logits = runner.map(pixels)
            made.put((number, logits))

    def guarded(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # handed over and raised by the caller's thread
            made.put(error)

    threads = [threading.Thread(target=guarded, args=(reading,), daemon=True) for _ in range(workers.readers)]
    threads += [threading.Thread(target=guarded, args=(inferring, runner), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        for done in range(1, len(numbers) + 1):
            found = made.get()
            if isinstance(found, BaseException):
                raise found
            unfinished.put(*found)
            room.release()
            progress(what, done, len(numbers))
    finally:
        stop.set()
        room.release(workers.readers)
        for _ in runners:
            read.put(None)
        for thread in threads:
            thread.join()
