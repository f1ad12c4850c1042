"""The HTML page of a scanned slide, one file that opens offline: figures, the map over the slide, top fields, foci."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge.reporting.template import render
from histoedge.scanning import heatmap
from histoedge.scanning.foci import Focus
from histoedge.scanning.slidemap import SlideMap
from histoedge.scanning.summary import computed, sentence

FOCI = 30  # rows of the table: the largest foci
OUTLINED = 400  # foci with an outline in the picture; more would make the page large


@dataclass(frozen=True)
class Field:
    """A top field: its pixels, uint8 (h, w, 3), with its square in the middle, and the square's corner in level 0."""

    pixels: np.ndarray
    x: float
    y: float
    probability: float


def page(
    slide_map: SlideMap,
    foci: Sequence[Focus],
    summary: dict[str, Any],
    *,
    fields: Sequence[Field],
    files: Sequence[str],
) -> str:
    """Return the page; ``files`` are the names of the scan's other files in the same folder."""
    picture, _ = heatmap.slide_picture(slide_map)
    left, top = slide_map.corner_level0_px(0, 0)
    rows, columns = slide_map.logits.shape
    place = {
        "left": 100 * left / slide_map.width_px,
        "top": 100 * top / slide_map.height_px,
        "width": 100 * columns * slide_map.step_level0_px / slide_map.width_px,
        "height": 100 * rows * slide_map.step_level0_px / slide_map.height_px,
    }
    return render(
        "histoedge.scanning",
        summary=summary,
        sentence=sentence(summary),
        tiles=_tiles(summary),
        slide=_data("jpeg", heatmap.jpeg(picture)),
        width=picture.shape[1],
        height=picture.shape[0],
        colours=_data("png", heatmap.png(heatmap.colours(slide_map))),
        scale=heatmap.swatches(),
        place=place,
        square=square_of(slide_map),
        patch_px=slide_map.manifest.patch_px,
        positive=slide_map.manifest.classes[1],
        outlines=[_path(focus) for focus in foci[:OUTLINED]],
        fields=[(_data("jpeg", heatmap.jpeg(field.pixels)), field) for field in fields],
        foci=foci[:FOCI],
        omitted=max(0, len(foci) - FOCI),
        details=_details(summary),
        files=files,
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture_px(slide_map: SlideMap) -> int:
    """Return the side of a top field's picture in pixels of the plane: its patch and one square more on each side."""
    return slide_map.manifest.patch_px + 2 * slide_map.step_px


def square_of(slide_map: SlideMap) -> dict[str, float]:
    """Return start and side of the square in a top field's picture, in percent of the picture."""
    start = slide_map.step_px + slide_map.margin_px
    return {
        name: 100 * value / picture_px(slide_map) for name, value in (("start", start), ("side", slide_map.step_px))
    }


def _path(focus: Focus) -> str:
    """Return the outline as an SVG path in pixels of level 0."""
    return " ".join(f"M{' L'.join(f'{x:.0f},{y:.0f}' for x, y in ring[:-1])}Z" for ring in heatmap.rings(focus))


def _tiles(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return label, figure and detail of the tiles at the top of the page."""
    foci, share = summary["foci"], summary["positive_share"]
    largest = summary["largest_focus_mm"]
    fields = summary["top_fields"]
    return [
        ("Tissue", f"{summary['tissue_mm2']:,.1f} mm²", "area of all squares with tissue"),
        (
            f"At or above probability {summary['threshold']:.3g}",
            f"{summary['positive_mm2']:,.2f} mm²",
            "no tissue" if share is None else f"{share:.1%} of the tissue",
        ),
        (
            "Largest focus",
            "none" if largest is None else f"{largest:.2f} mm",
            "1 focus in total" if foci == 1 else f"{foci:,} foci in total",
        ),
        (
            "Highest probability",
            f"{fields[0]['probability']:.3f}" if fields else "none",
            f"at x {fields[0]['x']:,.0f}, y {fields[0]['y']:,.0f}" if fields else "",
        ),
    ]


def _details(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the last section: slide, model, map, threshold, run times and versions."""
    slide, model, grid = summary["slide"], summary["model"], summary["map"]
    seconds = dict(summary["seconds"])
    elapsed = seconds.pop("by the clock")
    stages = ", ".join(f"{stage} {took:.2f} s" for stage, took in seconds.items())
    return [
        ("Slide", f"{slide['width_px']:,} x {slide['height_px']:,} px at {slide['um_per_px']:.4g} µm per px"),
        (
            "Model",
            f"{model['network']}, {model['recipe']}.{model['format']}, trained at {model['um_per_px']:.4g} µm per px",
        ),
        ("SHA-256 of the model", model["sha256"]),
        ("Resolution of the scan", f"{grid['um_per_px']:.4g} µm per px"),
        ("Map", f"{grid['rows']} x {grid['columns']} squares of {grid['step_um']:.4g} µm side"),
        ("Computed", computed(summary)),
        ("Threshold", f"{summary['threshold']:.6g}, {summary['inputs']['at'] or 'default of the manifest'}"),
        ("Run time", f"{elapsed:.2f} s elapsed; summed over threads: {stages}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
    ]
