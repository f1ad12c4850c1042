"""The summary of a map: areas, foci and top fields."""

from collections.abc import Sequence
from typing import Any

from histoedge.scanning.foci import Focus, top_fields
from histoedge.scanning.slidemap import SlideMap
from histoedge.version import __version__

FORMAT, KIND = 1, "scan"


def of(slide_map: SlideMap, foci: Sequence[Focus], *, threshold: float) -> dict[str, Any]:
    """Return slide, model, areas, foci and top fields; positions are those of squares, in pixels of level 0.

    Areas count squares with a probability: the margin of the plane outside of all labelled squares has none.
    ``pixels_computed`` counts the pixels that the model computed for each pixel of the map; ``computed`` is ``fields``,
    or ``patches`` for a model to which only single patches have a meaning.
    """
    manifest = slide_map.manifest
    square_mm2 = (slide_map.step_um / 1e3) ** 2
    tissue_mm2 = float(slide_map.tissue.sum()) * square_mm2
    positive_mm2 = sum(focus.area_mm2 for focus in foci)
    rows, columns = slide_map.logits.shape
    fields = []
    for row, column in top_fields(slide_map):
        x, y = slide_map.corner_level0_px(row, column)
        position = {
            "row": row,
            "column": column,
            "x": round(x, 1),
            "y": round(y, 1),
            "side": round(slide_map.step_level0_px, 1),
        }
        logit, probability = float(slide_map.logits[row, column]), float(slide_map.probability[row, column])
        fields.append({**position, "logit": logit, "probability": probability})
    return {
        "format": FORMAT,
        "kind": KIND,
        "slide": {
            "name": slide_map.slide,
            "width_px": slide_map.width_px,
            "height_px": slide_map.height_px,
            "um_per_px": slide_map.slide_um_per_px,
        },
        "model": {
            "network": manifest.network,
            "recipe": manifest.recipe,
            "format": manifest.format,
            "sha256": manifest.sha256,
            "um_per_px": manifest.um_per_px,
            "edge_mode": manifest.edge_mode,
            "classes": list(manifest.classes),
            "temperature": manifest.temperature,
        },
        "map": {
            "rows": rows,
            "columns": columns,
            "um_per_px": slide_map.um_per_px,
            "step_um": slide_map.step_um,
            "step_level0_px": slide_map.step_level0_px,
            "computed": "fields" if manifest.is_dense else "patches",
            "pixels_computed": slide_map.computed_share,
        },
        "threshold": threshold,
        "tissue_mm2": tissue_mm2,
        "positive_mm2": positive_mm2,
        "positive_share": positive_mm2 / tissue_mm2 if tissue_mm2 else None,
        "foci": len(foci),
        "largest_focus_mm": max((focus.diameter_mm for focus in foci), default=None),
        "largest_focus_mm2": max((focus.area_mm2 for focus in foci), default=None),
        "top_fields": fields,
        "histoedge": __version__,
    }


def computed(summary: dict[str, Any]) -> str:
    """Return how the map was computed, a clause without a full stop."""
    grid = summary["map"]
    if grid["computed"] == "fields":
        return f"in fields, {grid['pixels_computed']:.2f} pixels computed for each pixel"
    return (
        f"patch by patch (edge_mode patch), {grid['pixels_computed']:.1f} pixels computed for each pixel: slower than "
        "in fields"
    )


def sentence(summary: dict[str, Any]) -> str:
    """Return the summary as one clause without a full stop."""
    if not summary["tissue_mm2"]:
        return "no tissue: the map is empty"
    tissue = f"{summary['tissue_mm2']:.1f} mm² of tissue"
    if not summary["foci"]:
        return f"{tissue}, no square at or above probability {summary['threshold']:.3g}"
    foci = "1 focus" if summary["foci"] == 1 else f"{summary['foci']} foci"
    return (
        f"{tissue}, {summary['positive_mm2']:.2f} mm² at or above probability {summary['threshold']:.3g} in {foci}, "
        f"largest diameter {summary['largest_focus_mm']:.2f} mm"
    )
