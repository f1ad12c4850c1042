"""Whole slides: from pixels on glass to a map with one verdict for every 32 x 32 px square."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from histoedge.edge import manifest as manifests
from histoedge.progress import Progress, silent
from histoedge.scanning import engine, plane, slide, tissue
from histoedge.scanning.engine import Timings, Workers
from histoedge.scanning.plane import Plane
from histoedge.scanning.slidemap import STEP_PX, SlideMap

FIELD_PX = 1024
THUMBNAIL_PX = 2_000


class Scanned(NamedTuple):
    """A slide's map, the seconds of each stage, and the plane that it was read from."""

    map: SlideMap
    timings: Timings
    plane: Plane


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How slides are read: what decides the map. ``um_per_px`` stands before what a slide says of itself."""

    um_per_px: float | None = None
    mask: bool = True
    field_px: int = FIELD_PX
    runtime: str | None = None


def scan(
    path: Path,
    model: Path,
    folder: Path,
    *,
    settings: Scan,
    workers: Workers,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> Scanned:
    """The map of one slide; what is done of it lies in ``folder`` until ``engine.discard``, so a killed scan goes on.

    Fields are computed here by ``workers``, or by those of the Dask cluster whose ``scheduler`` has that address.

    Raises:
        DataError: the slide cannot be read, or its resolution does not fit the model's.
        ModelError, RuntimeUnavailable: the model cannot be opened.
        ConfigError: the model does not answer once per square.
        ClusterError: see ``cluster.compute``.
    """
    manifest = manifests.read(model)
    timings = Timings()
    opened = slide.open_slide(path)
    seen = plane.of_model(opened, manifest.um_per_px, settings.um_per_px)
    grid = engine.grid_of(seen, manifest, settings.field_px)
    with timings.of("mask"):
        picture = tissue.overview(seen)
        um = seen.um_per_px * STEP_PX / tissue.PER_SQUARE
        found = tissue.mask(picture, um) if settings.mask else np.ones(picture.shape[:2], bool)
        wanted = tissue.squares(found, grid.rows, grid.columns)
        per_square = _per_square(picture)
        thumbnail = picture if per_square == tissue.PER_SQUARE else tissue.overview(seen, per_square)
    unfinished = engine.Unfinished(folder, grid, scan_inputs(path, manifest.sha256, settings))
    numbers = [number for number in grid.fields(wanted) if not unfinished.done[number]]
    compute = engine.compute if scheduler is None else _on_cluster(scheduler)
    compute(
        seen,
        model,
        unfinished,
        grid,
        numbers,
        runtime=settings.runtime,
        workers=workers,
        timings=timings,
        progress=progress,
        what=f"{slide.name_of(path)}, fields",
    )
    logits = np.where(wanted, unfinished.logits, np.float32(np.nan))
    made = SlideMap(
        slide=slide.name_of(path),
        width_px=opened.width_px,
        height_px=opened.height_px,
        slide_um_per_px=seen.um_per_px / seen.scale,
        um_per_px=seen.um_per_px,
        scale=seen.scale,
        logits=logits,
        tissue=wanted,
        thumbnail=thumbnail,
        thumbnail_scale=seen.scale * STEP_PX / per_square,
        manifest=manifest,
    )
    return Scanned(made, timings, seen)


def _per_square(picture: np.ndarray) -> int:
    """Pixels of the thumbnail to the side of a square: a small slide is shown finer than its tissue is sought."""
    longest = int(max(picture.shape[:2]))
    return tissue.PER_SQUARE * max(1, min(STEP_PX // tissue.PER_SQUARE, THUMBNAIL_PX // longest))


def _on_cluster(scheduler: str) -> Callable[..., None]:
    from histoedge.scanning import cluster  # dask takes a second to import

    return partial(cluster.compute, scheduler=scheduler)


def scan_inputs(path: Path, sha256: str, settings: Scan) -> dict[str, Any]:
    """What a map is made from: the slide, by name, size and time of change, the model's SHA-256 and the settings."""
    status = os.stat(path)
    return {
        "slide": [path.name, status.st_size, status.st_mtime_ns],
        "model": sha256,
        "settings": asdict(settings),
    }
