"""The page of one scanned slide: one file that opens offline, the map over the slide, its figures and top fields."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge.reporting.template import render
from histoedge.scanning import heatmap
from histoedge.scanning.foci import Focus
from histoedge.scanning.slidemap import SlideMap
from histoedge.scanning.summary import sentence

FOCI = 30  # of the table, the largest
OUTLINED = 400  # foci with an outline in the picture: more would make the page large


@dataclass(frozen=True)
class Field:
    """A top field: its pixels, uint8 (h, w, 3), with the verdict's square in the middle; its place in level 0."""

    pixels: np.ndarray
    x: float
    y: float
    probability: float


def page(
    found: SlideMap, foci: Sequence[Focus], summary: dict[str, Any], *, fields: Sequence[Field], files: Sequence[str]
) -> str:
    """The page; ``files`` are the names of what else the scan wrote beside it."""
    picture, _ = heatmap.shown(found)
    left, top = found.corner_level0_px(0, 0)
    rows, columns = found.logits.shape
    place = {
        "left": 100 * left / found.width_px,
        "top": 100 * top / found.height_px,
        "width": 100 * columns * found.step_level0_px / found.width_px,
        "height": 100 * rows * found.step_level0_px / found.height_px,
    }
    return render(
        "histoedge.scanning",
        summary=summary,
        sentence=sentence(summary),
        tiles=_tiles(summary),
        slide=_data("jpeg", heatmap.jpeg(picture)),
        width=picture.shape[1],
        height=picture.shape[0],
        colours=_data("png", heatmap.png(heatmap.colours(found))),
        scale=heatmap.swatches(),
        place=place,
        outlines=[_path(focus) for focus in foci[:OUTLINED]],
        fields=[(_data("jpeg", heatmap.jpeg(one.pixels)), one) for one in fields],
        foci=foci[:FOCI],
        left_out=max(0, len(foci) - FOCI),
        made=_made(summary),
        files=files,
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _path(focus: Focus) -> str:
    """The outline as an SVG path in pixels of level 0."""
    return " ".join(f"M{' L'.join(f'{x:.0f},{y:.0f}' for x, y in ring[:-1])}Z" for ring in heatmap.rings(focus))


def _tiles(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Label, figure, detail of what to see first."""
    foci, share = summary["foci"], summary["positive_share"]
    largest = summary["largest_focus_mm"]
    fields = summary["top_fields"]
    return [
        ("Tissue", f"{summary['tissue_mm2']:,.1f} mm²", "squares with a verdict"),
        (
            f"Probability {summary['threshold']:.3g} or more",
            f"{summary['positive_mm2']:,.2f} mm²",
            "no tissue" if share is None else f"{share:.1%} of the tissue",
        ),
        ("Largest focus", "none" if largest is None else f"{largest:.2f} mm", f"{foci:,} in all"),
        (
            "Highest probability",
            f"{fields[0]['probability']:.3f}" if fields else "none",
            f"at x {fields[0]['x']:,.0f}, y {fields[0]['y']:,.0f}" if fields else "",
        ),
    ]


def _made(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """How the map came to be, for the end of the page."""
    slide, model, grid = summary["slide"], summary["model"], summary["map"]
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in summary["seconds"].items())
    return [
        ("Slide", f"{slide['width_px']:,} x {slide['height_px']:,} px of {slide['um_per_px']:.4g} µm"),
        ("Model", f"{model['network']}, {model['recipe']}.{model['format']}, at {model['um_per_px']:.4g} µm per px"),
        ("Model's SHA-256", model["sha256"]),
        ("Seen at", f"{grid['um_per_px']:.4g} µm per px"),
        ("Map", f"{grid['rows']} x {grid['columns']} squares of {grid['step_um']:.4g} µm"),
        ("Threshold", f"{summary['threshold']:.6g}, {summary['inputs']['at'] or 'the manifest’s'}"),
        ("Seconds by stage, over all threads", stages),
        ("Versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
    ]
