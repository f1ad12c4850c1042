"""Foci as GeoJSON annotations in pixels of level 0, which QuPath opens (drag the file onto the slide)."""

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from histoedge.scanning.foci import Focus

COLOUR = [200, 0, 0]  # QuPath's for tumour
QUPATH_NAMES = {"tumour": "Tumor"}  # QuPath's standard names


def collection(foci: Sequence[Focus], positive: str) -> dict[str, Any]:
    """Return a FeatureCollection with one annotation per focus, in order (RFC 7946 except for the coordinates).

    ``positive`` is the name of the positive class. Measurements are an object, as QuPath writes them since 0.4.
    """
    return {
        "type": "FeatureCollection",
        "features": [_feature(number, focus, positive) for number, focus in enumerate(foci, start=1)],
    }


def _feature(number: int, focus: Focus, positive: str) -> dict[str, Any]:
    from shapely.geometry import mapping

    return {
        "type": "Feature",
        "id": str(uuid5(NAMESPACE_OID, focus.outline.wkb_hex)),  # the same focus has the same id in every scan
        "geometry": mapping(focus.outline),
        "properties": {
            "objectType": "annotation",
            "name": f"focus {number}",
            "classification": {"name": QUPATH_NAMES.get(positive, positive), "color": COLOUR},
            "measurements": {
                "area mm^2": round(focus.area_mm2, 6),
                "diameter mm": round(focus.diameter_mm, 4),
                "mean probability": round(focus.mean_probability, 6),
                "largest probability": round(focus.largest_probability, 6),
            },
        },
    }
