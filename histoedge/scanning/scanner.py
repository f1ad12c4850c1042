"""Scan one slide: tissue mask, fields, logits, map."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from histoedge.edge import manifest as manifests
from histoedge.progress import Progress, silent
from histoedge.scanning import engine, plane, readers, slide, tissue
from histoedge.scanning.engine import FieldsJob, Timings, Workers
from histoedge.scanning.grid import grid_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.slidemap import SlideMap
from histoedge.scanning.unfinished import Unfinished

FIELD_PX = 1024
THUMBNAIL_PX = 2_000


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The settings that decide the map: ``um_per_px`` of level 0 overrides the slide's metadata."""

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
) -> "Scanned":
    """Compute the map of one slide.

    Finished fields are stored in ``folder`` until ``unfinished.discard``; an interrupted scan resumes from them. This
    process computes the fields with ``workers``, or the workers of the Dask scheduler at ``scheduler`` do.

    Raises:
        DataError: the slide cannot be read, or its resolution does not fit the model.
        ModelError, RuntimeUnavailable: the model cannot be opened.
        ConfigError: see ``grid_of``.
        ClusterError: see ``cluster.compute``.
    """
    manifest = manifests.read(model)
    timings = Timings()
    opened = readers.open_slide(path)
    slide_plane = plane.of_model(opened, manifest.um_per_px, settings.um_per_px)
    grid = grid_of(slide_plane, manifest, settings.field_px)
    with timings.of("mask"):
        per_square = tissue.pixels_per_square(grid.step_px, manifest.um_per_px)
        picture = tissue.overview(slide_plane, grid.step_px / per_square)
        um_per_px = slide_plane.um_per_px * grid.step_px / per_square
        mask = tissue.mask(picture, um_per_px) if settings.mask else np.ones(picture.shape[:2], bool)
        squares = tissue.squares(mask, grid, per_square)
        shown = per_square * _thumbnail_enlargement(picture, grid.step_px // per_square)
        thumbnail = picture if shown == per_square else tissue.overview(slide_plane, grid.step_px / shown)
    unfinished = Unfinished(folder, grid, scan_inputs(path, manifest.sha256, settings))
    job = FieldsJob(
        plane=slide_plane,
        model=model,
        grid=grid,
        numbers=[number for number in grid.fields(squares) if not unfinished.done[number]],
        unfinished=unfinished,
        runtime=settings.runtime,
        workers=workers,
        timings=timings,
        progress=progress,
        label=f"{slide.name_of(path)}, fields",
    )
    if scheduler is None:
        engine.compute(job)
    else:
        from histoedge.scanning import cluster  # importing dask takes a second

        cluster.compute(job, scheduler=scheduler)
    slide_map = SlideMap(
        slide=slide.name_of(path),
        width_px=opened.width_px,
        height_px=opened.height_px,
        slide_um_per_px=slide_plane.um_per_px / slide_plane.scale,
        um_per_px=slide_plane.um_per_px,
        scale=slide_plane.scale,
        logits=np.where(squares, unfinished.logits, np.float32(np.nan)),
        tissue=squares,
        thumbnail=thumbnail,
        thumbnail_scale=slide_plane.scale * grid.step_px / shown,
        computed_share=grid.computed_share(is_dense=manifest.is_dense),
        manifest=manifest,
    )
    return Scanned(slide_map, timings, slide_plane)


class Scanned(NamedTuple):
    """A slide's map, the seconds of each stage, and the plane that the fields were read from."""

    map: SlideMap
    timings: Timings
    plane: Plane


def scan_inputs(path: Path, sha256: str, settings: Scan) -> dict[str, Any]:
    """Return the inputs of a map: the slide's name, size and modification time, the model's SHA-256, the settings."""
    status = os.stat(path)
    return {
        "slide": [path.name, status.st_size, status.st_mtime_ns],
        "model": sha256,
        "settings": asdict(settings),
    }


def _thumbnail_enlargement(picture: np.ndarray, most: int) -> int:
    """Return how much finer the thumbnail is than the mask's picture: a small slide is shown up to ``most`` finer."""
    return max(1, min(most, THUMBNAIL_PX // int(max(picture.shape[:2]))))
