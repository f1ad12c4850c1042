"""Many slides into one folder: each with its map, pictures, tables and page; a bad one is a line, not the end."""

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from histoedge import edge, files
from histoedge.edge import Manifest
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError
from histoedge.progress import Progress, silent
from histoedge.scanning import engine, foci, geojson, heatmap, ometiff, summary, tiles
from histoedge.scanning import page as pages
from histoedge.scanning.engine import Workers
from histoedge.scanning.plane import Plane
from histoedge.scanning.scanner import Scan, scan, scan_inputs
from histoedge.scanning.slide import DICOM, SUFFIXES, name_of
from histoedge.scanning.slidemap import STEP_PX, SlideMap
from histoedge.version import __version__

MAP, HEATMAP, REGIONS, TILES, SUMMARY, PAGE = (
    "map.ome.tif",
    "heatmap.png",
    "foci.geojson",
    "tiles.csv",
    "summary.json",
    "page.html",
)
ALL = "slides.csv"
COLUMNS = ("slide", "status", "tissue_mm2", "positive_mm2", "foci", "largest_focus_mm", "seconds", "reason")
FIELD_SQUARES = 5  # on a side of a top field's picture: its patch and a square around it


class SlidesFailed(HistoedgeError):
    """Some slides could not be scanned; the others are done."""


@dataclass(frozen=True, kw_only=True)
class SlideOutcome:
    """What became of a slide: ``status`` is ``done``, ``kept`` (it was done before) or ``failed``, with a reason."""

    slide: Path
    folder: Path
    status: str
    summary: dict[str, Any] | None = None
    reason: str = ""

    def line(self) -> str:
        """What was found, and the page to look at."""
        if self.summary is None:
            return f"{name_of(self.slide)}: {self.reason}"
        return f"{name_of(self.slide)}: {summary.sentence(self.summary)}; {self.folder / PAGE}"

    def as_json(self) -> dict[str, Any]:
        """The outcome with its summary."""
        told = {"slide": str(self.slide), "folder": str(self.folder), "status": self.status, "reason": self.reason}
        return {**told, "summary": self.summary}

    def row(self) -> dict[str, Any]:
        """Its line of the table of all."""
        told: dict[str, Any] = self.summary or {}
        figures = {key: told.get(key) for key in ("tissue_mm2", "positive_mm2", "foci", "largest_focus_mm")}
        seconds = told.get("seconds", {}).get("by the clock")
        return {
            "slide": name_of(self.slide),
            "status": self.status,
            **figures,
            "seconds": seconds,
            "reason": self.reason,
        }


def find_slides(places: Sequence[Path]) -> list[Path]:
    """The slides: each file as given, each folder's by name; DICOM files that lie together are one slide.

    Raises:
        DataError: a place that does not exist, or a folder without slides.
        ConfigError: two slides that would be written to the same folder.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = _in_folder(place)
            for below in sorted(path for path in place.iterdir() if path.is_dir()):
                inside += [path for path in _in_folder(below) if path.suffix.lower() == DICOM]
            if not inside:
                raise DataError(f"{place}: no slides here; expected files ending in {', '.join(SUFFIXES)}")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise DataError(f"{place}: no such slide or folder")
    names = [_name(path) for path in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two slides would be written to a folder named {name}; scan them into two --out folders")
    return found


def _in_folder(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    dicom = [path for path in inside if path.suffix.lower() == DICOM]
    return [path for path in inside if path not in dicom[1:]]


def _name(path: Path) -> str:
    """Of the folder that a slide's files are written to."""
    return name_of(path) if path.suffix.lower() == DICOM else path.stem


def scan_all(
    slides: Sequence[Path],
    model: Path,
    out: Path,
    *,
    settings: Scan,
    at: str | None = None,
    workers: Workers,
    scheduler: str | None = None,
    progress: Progress = silent,
    tell: Callable[[SlideOutcome], None] = lambda outcome: None,
) -> list[SlideOutcome]:
    """Scan each slide into ``out/<its name>``; what is done already is kept, so a killed scan of many goes on.

    Args:
        slides: files, see ``find``.
        model: an exported file.
        out: the folder; ``slides.csv`` there has a line for each slide.
        settings: how slides are read.
        at: the operating point whose threshold counts; without it the manifest's threshold.
        workers: how much runs at once.
        scheduler: the address of a Dask cluster's scheduler, whose workers then compute.
        progress: told the fields of each slide, and of several the slides.
        tell: called with each slide's outcome.

    Raises:
        ModelError, RuntimeUnavailable: the model cannot be opened.
        ConfigError: the model has no such operating point, or a folder holds the map of other inputs.
        WriteError: ``out`` cannot be written.
    """
    runner = edge.load(model, runtime=settings.runtime)
    job = _Batch(
        model=model,
        manifest=runner.manifest,
        settings=replace(settings, runtime=settings.runtime or runner.runtime),
        at=at,
        threshold=runner.manifest.threshold if at is None else runner.manifest.operating_point(at).threshold,
        versions={"histoedge": __version__, runner.runtime: runner.version, **_reader_versions()},
    )
    files.make_folder(out)
    outcomes: list[SlideOutcome] = []
    for path in slides:
        folder = out / _name(path)
        try:
            told = _kept(folder, job.inputs(path))
            status = "done" if told is None else "kept"
            if told is None:
                told = _scan_one(path, folder, job, workers=workers, scheduler=scheduler, progress=progress)
            outcome = SlideOutcome(slide=path, folder=folder, status=status, summary=told)
        except DataError as error:
            outcome = SlideOutcome(slide=path, folder=folder, status="failed", reason=" ".join(str(error).split()))
        outcomes.append(outcome)
        _write_table(out / ALL, outcomes)
        tell(outcome)
        if len(slides) > 1:
            progress("slides", len(outcomes), len(slides))
    return outcomes


def raise_for_failed(outcomes: Sequence[SlideOutcome]) -> None:
    """Raise ``SlidesFailed`` where a slide failed: a line that names each with its reason."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if not failed:
        return
    told = "; ".join(outcome.reason for outcome in failed)
    if len(outcomes) > 1:
        told = f"{len(failed)} of {len(outcomes)} slides failed, the others are done: {told}"
    raise SlidesFailed(told)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What is the same for all slides."""

    model: Path
    manifest: Manifest
    settings: Scan
    at: str | None
    threshold: float
    versions: dict[str, str]

    def inputs(self, path: Path) -> dict[str, Any]:
        """What the files of a slide are made from."""
        made: dict[str, Any] = json.loads(json.dumps(scan_inputs(path, self.manifest.sha256, self.settings)))
        return {**made, "at": self.at}


def _reader_versions() -> dict[str, str]:
    return {name: version(name) for name in ("openslide-python", "openslide-bin", "tifffile", "pillow")}


def _kept(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of an earlier scan with the same inputs; None where there is none."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    mend = "choose another --out, or remove that folder"
    try:
        if path.stat().st_size > files.LARGEST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = json.loads(path.read_bytes())
        before = found["inputs"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a summary of a scan ({error}); {mend}") from error
    if before == inputs:
        return dict(found)
    for key, what in (("model", "another model"), ("slide", "another slide, or one that changed since")):
        if before.get(key) != inputs[key]:
            raise ConfigError(f"{folder}: holds the map of {what}: {before.get(key)}, expected {inputs[key]}; {mend}")
    raise ConfigError(
        f"{folder}: holds a map with other settings: {_settings(before)}, not {_settings(inputs)}; {mend}"
    )


def _settings(inputs: dict[str, Any]) -> str:
    told = {**inputs.get("settings", {}), "at": inputs.get("at")}
    return ", ".join(f"{key} {value}" for key, value in told.items())


def _scan_one(
    path: Path, folder: Path, job: _Batch, *, workers: Workers, scheduler: str | None, progress: Progress
) -> dict[str, Any]:
    """The summary of a slide whose files are written; the summary last, because it says that all are there."""
    started = time.perf_counter()
    found, timings, seen = scan(
        path, job.model, folder, settings=job.settings, workers=workers, scheduler=scheduler, progress=progress
    )
    with timings.of("write"):
        regions = foci.foci(found, job.threshold)
        ometiff.write_ometiff(found, folder / MAP)
        scale = heatmap.draw(found, regions, folder / HEATMAP, threshold=job.threshold)
        files.write_json(folder / REGIONS, geojson.collection(regions))
        tiles.write_tiles(found, folder / TILES)
        told = summary.of(found, regions, threshold=job.threshold)
        pictures = [_picture(seen, found, field) for field in told["top_fields"]]
    told |= {
        "heatmap": {"file": HEATMAP, "level0_px_per_px": scale},
        "seconds": {**timings.seconds, "by the clock": time.perf_counter() - started},
        "versions": job.versions,
        "inputs": job.inputs(path),
    }
    page = pages.page(found, regions, told, fields=pictures, files=(MAP, HEATMAP, REGIONS, TILES, SUMMARY))
    files.write_text(folder / PAGE, page)
    files.write_json(folder / SUMMARY, told)
    engine.discard(folder)
    return told


def _picture(seen: Plane, found: SlideMap, field: dict[str, Any]) -> pages.Field:
    """A top field as the network sees it, its square in the middle."""
    around = FIELD_SQUARES // 2
    left, top = ((field[key] + 1 - around) * STEP_PX for key in ("column", "row"))
    return pages.Field(
        pixels=seen.read(left, top, FIELD_SQUARES * STEP_PX, FIELD_SQUARES * STEP_PX),
        x=field["x"],
        y=field["y"],
        probability=field["probability"],
    )


def _write_table(path: Path, outcomes: Sequence[SlideOutcome]) -> None:
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(outcome.row() for outcome in outcomes)
