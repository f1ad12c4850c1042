"""Foci: connected squares of a map at or above a threshold, with their area, diameter and outline."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from histoedge.scanning.slidemap import SlideMap

TOP = 12  # number of top fields
TOUCHING = np.ones((3, 3), bool)  # squares that share a corner belong to one focus


def foci(slide_map: SlideMap, threshold: float) -> "list[Focus]":
    """Return the foci of a map, the largest area first; ties from top to bottom, then from left to right."""
    from scipy import ndimage

    probability = slide_map.probability
    above = probability >= threshold  # False without tissue: NaN
    labels, _ = ndimage.label(above, structure=TOUCHING)
    square_mm2 = (slide_map.step_um / 1e3) ** 2
    unsorted = [
        Focus(
            rows=rows,
            columns=columns,
            mean_probability=float(probability[rows, columns].mean(dtype=np.float64)),
            largest_probability=float(probability[rows, columns].max()),
            area_mm2=len(rows) * square_mm2,
            step_level0_px=slide_map.step_level0_px,
            margin_squares=slide_map.margin_squares,
            um_per_level0_px=slide_map.slide_um_per_px,
        )
        for rows, columns in _places(labels)
    ]
    return sorted(unsorted, key=lambda focus: -len(focus.rows))  # stable: ties stay in label order


def _places(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows and the columns of each label, from 1."""
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    starts = np.flatnonzero(np.diff(labels[rows, columns])) + 1
    for places in np.split(np.arange(len(rows)), starts):
        if len(places):
            yield rows[places], columns[places]


def top_fields(slide_map: SlideMap, count: int = TOP) -> list[tuple[int, int]]:
    """Return row and column of the squares with the highest logits whose patches do not overlap."""
    rows, columns = np.nonzero(~np.isnan(slide_map.logits))
    order = np.argsort(-slide_map.logits[rows, columns], kind="stable")
    apart = -(-slide_map.manifest.patch_px // slide_map.step_px)  # squares
    chosen: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if all(abs(row - y) >= apart or abs(column - x) >= apart for y, x in chosen):
            chosen.append((row, column))
            if len(chosen) == count:
                break
    return chosen


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Connected squares at or above the threshold; ``rows`` and ``columns``, int (N,), locate them in the map."""

    rows: np.ndarray
    columns: np.ndarray
    mean_probability: float
    largest_probability: float
    area_mm2: float
    step_level0_px: float
    margin_squares: float
    um_per_level0_px: float

    @cached_property
    def outline(self) -> Any:
        """The outline as a shapely (Multi)Polygon with holes, in pixels of level 0."""
        import shapely

        left, top = self.columns.astype(float), self.rows.astype(float)
        boxes = shapely.box(left, top, left + 1, top + 1)  # integers: adjacent edges coincide exactly
        squares = shapely.coverage_union_all(boxes)
        return shapely.transform(squares, lambda corners: (corners + self.margin_squares) * self.step_level0_px)

    @property
    def diameter_mm(self) -> float:
        """The largest distance between two points of the focus in millimetres, as metastases are measured."""
        from scipy.spatial.distance import pdist

        corners = np.asarray(self.outline.convex_hull.exterior.coords)
        return float(pdist(corners).max()) * self.um_per_level0_px / 1e3
