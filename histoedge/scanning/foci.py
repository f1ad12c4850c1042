"""Where a map is above a threshold: foci, with the figures that a pathologist asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from histoedge.scanning.slidemap import SlideMap

TOP, APART = 12, 3  # fields that are told; squares between them, so that no two of their patches overlap
TOUCHING = np.ones((3, 3), bool)  # squares that touch at a corner are one focus


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Neighbouring squares at or above the threshold; ``rows`` and ``columns``, int (N,), are their places."""

    rows: np.ndarray
    columns: np.ndarray
    mean_probability: float
    largest_probability: float
    area_mm2: float
    step_level0_px: float
    um_per_level0_px: float

    @cached_property
    def outline(self) -> Any:
        """A shapely (Multi)Polygon with holes in pixels of level 0."""
        import shapely

        left, top = self.columns + 1.0, self.rows + 1.0
        boxes = shapely.box(left, top, left + 1, top + 1)  # whole numbers: edges meet exactly
        squares = shapely.coverage_union_all(boxes)
        return shapely.transform(squares, lambda corners: corners * self.step_level0_px)

    @property
    def diameter_mm(self) -> float:
        """The greatest distance between two points of the focus in millimetres, as metastases are measured."""
        from scipy.spatial.distance import pdist

        corners = np.asarray(self.outline.convex_hull.exterior.coords)
        return float(pdist(corners).max()) * self.um_per_level0_px / 1e3


def foci(found: SlideMap, threshold: float) -> list[Focus]:
    """The foci of a map, the one of the largest area first; of equal ones the upper, then the left one."""
    from scipy import ndimage

    probability = found.probability
    above = probability >= threshold  # False where there is no tissue: NaN
    labels, _ = ndimage.label(above, structure=TOUCHING)
    square_mm2 = (found.step_um / 1e3) ** 2
    made = [
        Focus(
            rows=rows,
            columns=columns,
            mean_probability=float(probability[rows, columns].mean(dtype=np.float64)),
            largest_probability=float(probability[rows, columns].max()),
            area_mm2=len(rows) * square_mm2,
            step_level0_px=found.step_level0_px,
            um_per_level0_px=found.slide_um_per_px,
        )
        for rows, columns in _places(labels)
    ]
    return sorted(made, key=lambda focus: -len(focus.rows))  # stable


def _places(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each label from 1 on."""
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    starts = np.flatnonzero(np.diff(labels[rows, columns])) + 1
    for places in np.split(np.arange(len(rows)), starts):
        if len(places):
            yield rows[places], columns[places]


def top_fields(found: SlideMap, count: int = TOP) -> list[tuple[int, int]]:
    """Row and column of the squares with the highest logits, so far apart that their patches do not overlap."""
    rows, columns = np.nonzero(~np.isnan(found.logits))
    order = np.argsort(-found.logits[rows, columns], kind="stable")
    chosen: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if all(abs(row - y) >= APART or abs(column - x) >= APART for y, x in chosen):
            chosen.append((row, column))
            if len(chosen) == count:
                break
    return chosen
