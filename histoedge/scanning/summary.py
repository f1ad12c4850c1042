"""What a map says in a few figures."""

from collections.abc import Sequence
from typing import Any

from histoedge.scanning.foci import Focus, top_fields
from histoedge.scanning.slidemap import SlideMap
from histoedge.version import __version__

FORMAT, KIND = 1, "scan"


def of(found: SlideMap, foci: Sequence[Focus], *, threshold: float) -> dict[str, Any]:
    """Slide, model, areas, foci and top fields; places are in pixels of level 0, of the squares that verdicts speak of.

    Areas count squares with a verdict: the outermost ring of 32 px of the plane has none.
    """
    manifest = found.manifest
    square_mm2 = (found.step_um / 1e3) ** 2
    tissue_mm2 = float(found.tissue.sum()) * square_mm2
    positive_mm2 = sum(focus.area_mm2 for focus in foci)
    rows, columns = found.logits.shape
    fields = []
    for row, column in top_fields(found):
        x, y = found.corner_level0_px(row, column)
        told = {
            "row": row,
            "column": column,
            "x": round(x, 1),
            "y": round(y, 1),
            "side": round(found.step_level0_px, 1),
        }
        logit, probability = float(found.logits[row, column]), float(found.probability[row, column])
        fields.append({**told, "logit": logit, "probability": probability})
    return {
        "format": FORMAT,
        "kind": KIND,
        "slide": {
            "name": found.slide,
            "width_px": found.width_px,
            "height_px": found.height_px,
            "um_per_px": found.slide_um_per_px,
        },
        "model": {
            "network": manifest.network,
            "recipe": manifest.recipe,
            "format": manifest.format,
            "sha256": manifest.sha256,
            "um_per_px": manifest.um_per_px,
            "edge_mode": manifest.edge_mode,
            "temperature": manifest.temperature,
        },
        "map": {
            "rows": rows,
            "columns": columns,
            "um_per_px": found.um_per_px,
            "step_um": found.step_um,
            "step_level0_px": found.step_level0_px,
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


def sentence(summary: dict[str, Any]) -> str:
    """The summary in plain words."""
    if not summary["tissue_mm2"]:
        return "no tissue found: the map is empty"
    told = f"{summary['tissue_mm2']:.1f} mm² of tissue"
    if not summary["foci"]:
        return f"{told}, nothing at or above probability {summary['threshold']:.3g}"
    foci = "1 focus" if summary["foci"] == 1 else f"{summary['foci']} foci"
    return (
        f"{told}, {summary['positive_mm2']:.2f} mm² at or above probability {summary['threshold']:.3g} in {foci}, "
        f"the largest {summary['largest_focus_mm']:.2f} mm across"
    )
