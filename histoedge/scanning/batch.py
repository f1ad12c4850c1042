"""Scan many slides into one folder: for each slide the map, pictures, tables and a page.

An unreadable slide is reported as failed and the others are scanned.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from histoedge import edge, files
from histoedge.edge.errors import ConfigError, DataError
from histoedge.edge.manifest import Manifest
from histoedge.progress import Progress, silent
from histoedge.scanning import foci, geojson, heatmap, ometiff, summary, tiles, unfinished
from histoedge.scanning import page as pages
from histoedge.scanning.engine import Workers
from histoedge.scanning.outcome import PAGE, SlideOutcome, write_outcomes
from histoedge.scanning.plane import Plane
from histoedge.scanning.scanner import Scan, scan, scan_inputs
from histoedge.scanning.slide import DICOM, SUFFIXES, name_of
from histoedge.scanning.slidemap import SlideMap
from histoedge.version import __version__

MAP, HEATMAP, REGIONS, TILES, SUMMARY = (
    "map.ome.tif",
    "heatmap.png",
    "foci.geojson",
    "tiles.csv",
    "summary.json",
)
ALL = "slides.csv"


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """Everything that is the same for all slides of one command.

    Args:
        model: an exported file.
        settings: how slides are read.
        at: the operating point whose threshold is used; None for the manifest's threshold.
        workers: readers and interpreters that run at the same time.
        scheduler: address of a Dask scheduler whose workers compute; None for this process.
        progress: called with the fields done of each slide, and with the slides done if there are several.
        on_outcome: called with each slide's outcome.
    """

    model: Path
    settings: Scan
    workers: Workers
    at: str | None = None
    scheduler: str | None = None
    progress: Progress = silent
    on_outcome: Callable[[SlideOutcome], None] = lambda outcome: None


def find_slides(places: Sequence[Path]) -> list[Path]:
    """Return the slides: files in the order given, folders sorted by file name.

    All DICOM files of one folder are one slide.

    Raises:
        DataError: a place that does not exist, or a folder without slides.
        ConfigError: two slides whose outputs would go to the same folder.
    """
    slides = files.expand(places, _slides_below, kind="slide", suffixes=SUFFIXES)
    folders = [_folder_name(path) for path in slides]
    for name in folders:
        if folders.count(name) > 1:
            raise ConfigError(f"two slides would be written to a folder named {name}; scan them into two --out folders")
    return slides


def _slides_below(folder: Path) -> list[Path]:
    """Return the slides of a folder, then the DICOM slides of its subfolders."""
    slides = _slides_in(folder)
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        slides += [path for path in _slides_in(subfolder) if path.suffix.lower() == DICOM]
    return slides


def _slides_in(folder: Path) -> list[Path]:
    slides = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    dicom = [path for path in slides if path.suffix.lower() == DICOM]
    return [path for path in slides if path not in dicom[1:]]


def scan_all(slides: Sequence[Path], out: Path, job: BatchJob) -> list[SlideOutcome]:
    """Scan each slide into ``out/<slide name>/`` and write ``out/slides.csv``.

    Slides that an earlier command finished are kept; an interrupted scan resumes.

    Raises:
        ModelError, RuntimeUnavailable: the model cannot be opened.
        ConfigError: the model has no such operating point, or a folder contains the map of other inputs.
        WriteError: ``out`` cannot be written.
    """
    model = _open_model(job)
    files.make_folder(out)
    outcomes: list[SlideOutcome] = []
    for path in slides:
        outcome = _outcome(path, out / _folder_name(path), job, model)
        outcomes.append(outcome)
        write_outcomes(out / ALL, outcomes)
        job.on_outcome(outcome)
        if len(slides) > 1:
            job.progress("slides", len(outcomes), len(slides))
    return outcomes


def _folder_name(path: Path) -> str:
    """Return the name of the folder that a slide's files are written to."""
    return name_of(path) if path.suffix.lower() == DICOM else path.stem


def _open_model(job: BatchJob) -> "_Model":
    runner = edge.load(job.model, runtime=job.settings.runtime)
    manifest = runner.manifest
    readers = {name: version(name) for name in ("openslide-python", "openslide-bin", "tifffile", "pillow")}
    return _Model(
        manifest=manifest,
        threshold=manifest.threshold if job.at is None else manifest.operating_point(job.at).threshold,
        settings=replace(job.settings, runtime=job.settings.runtime or runner.runtime),
        at=job.at,
        versions={"histoedge": __version__, runner.runtime: runner.version, **readers},
    )


@dataclass(frozen=True, kw_only=True)
class _Model:
    """The model of a batch: its manifest and threshold, the settings with the runtime, and the versions in use."""

    manifest: Manifest
    threshold: float
    settings: Scan
    at: str | None
    versions: dict[str, str]

    def inputs(self, path: Path) -> dict[str, Any]:
        """Return the inputs that decide the contents of a slide's files, as JSON."""
        inputs: dict[str, Any] = json.loads(json.dumps(scan_inputs(path, self.manifest.sha256, self.settings)))
        return {**inputs, "at": self.at}


def _outcome(path: Path, folder: Path, job: BatchJob, model: _Model) -> SlideOutcome:
    """Scan a slide, or keep its earlier outputs; a slide that cannot be read fails with a one-line reason."""
    try:
        earlier = _earlier_summary(folder, model.inputs(path))
        if earlier is not None:
            return SlideOutcome(slide=path, folder=folder, status="kept", summary=earlier)
        return SlideOutcome(slide=path, folder=folder, status="done", summary=_scan_slide(path, folder, job, model))
    except DataError as error:
        return SlideOutcome(slide=path, folder=folder, status="failed", reason=" ".join(str(error).split()))


def _earlier_summary(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the summary of an earlier scan with the same inputs; None without one.

    Raises:
        ConfigError: the folder contains the map of other inputs, or an unreadable summary.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return None
    remedy = "choose another --out, or remove that folder"
    try:
        if path.stat().st_size > files.LARGEST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        earlier = json.loads(path.read_bytes())
        before = earlier["inputs"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not the summary of a scan ({error}); {remedy}") from error
    if before == inputs:
        return dict(earlier)
    if before.get("model") != inputs["model"]:
        raise ConfigError(
            f"{folder}: contains the map of another model (SHA-256 {str(before.get('model'))[:12]}, "
            f"expected {inputs['model'][:12]}); {remedy}"
        )
    if before.get("slide") != inputs["slide"]:
        raise ConfigError(
            f"{folder}: contains the map of another slide, or of an earlier version of this slide; {remedy}"
        )
    raise ConfigError(
        f"{folder}: contains a map with other settings: {_settings_text(before)}, expected {_settings_text(inputs)}; "
        f"{remedy}"
    )


def _settings_text(inputs: dict[str, Any]) -> str:
    settings = {**inputs.get("settings", {}), "at": inputs.get("at")}
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _scan_slide(path: Path, folder: Path, job: BatchJob, model: _Model) -> dict[str, Any]:
    """Scan a slide, write its files and return its summary, which is written last: it marks the slide as done."""
    started = time.perf_counter()
    slide_map, timings, plane = scan(
        path,
        job.model,
        folder,
        settings=model.settings,
        workers=job.workers,
        scheduler=job.scheduler,
        progress=job.progress,
    )
    with timings.of("write"):
        regions = foci.foci(slide_map, model.threshold)
        ometiff.write_ometiff(slide_map, folder / MAP)
        scale = heatmap.draw(slide_map, regions, folder / HEATMAP, threshold=model.threshold)
        files.write_json(folder / REGIONS, geojson.collection(regions, slide_map.manifest.classes[1]))
        tiles.write_tiles(slide_map, folder / TILES)
        figures = summary.of(slide_map, regions, threshold=model.threshold)
        top_fields = [_top_field(slide_map, plane, field) for field in figures["top_fields"]]
    figures |= {
        "heatmap": {"file": HEATMAP, "level0_px_per_px": scale},
        "seconds": {**timings.seconds, "by the clock": time.perf_counter() - started},
        "versions": model.versions,
        "inputs": model.inputs(path),
    }
    other_files = (MAP, HEATMAP, REGIONS, TILES, SUMMARY)
    page = pages.page(slide_map, regions, figures, fields=top_fields, files=other_files)
    files.write_text(folder / PAGE, page)
    files.write_json(folder / SUMMARY, figures)
    unfinished.discard(folder)
    return figures


def _top_field(slide_map: SlideMap, plane: Plane, field: dict[str, Any]) -> pages.Field:
    """Return a top field with its pixels at the model's resolution, its square in the middle."""
    left, top = ((field[key] - 1) * slide_map.step_px for key in ("column", "row"))
    side = pages.picture_px(slide_map)
    return pages.Field(
        pixels=plane.read(left, top, side, side),
        x=field["x"],
        y=field["y"],
        probability=field["probability"],
    )
