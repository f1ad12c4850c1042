"""The map of a slide, from which all outputs are derived."""

from dataclasses import dataclass

import numpy as np

from histoedge.edge import Manifest


@dataclass(frozen=True, kw_only=True)
class SlideMap:
    """The logits of a slide, one per square, and the geometry that locates them.

    The plane is the slide at ``um_per_px``, the model's resolution, with the slide's origin; one plane pixel is
    ``scale`` pixels of the slide at full resolution (level 0). Row i, column j of ``logits``, float32 (rows, columns),
    is a square of ``step_px`` plane pixels, to which the label of a patch applies: the centre of the patch whose corner
    is at (i, j) x ``step_px``, ``margin_px`` from the patch's border. It is NaN without tissue. ``tissue``, bool (rows,
    columns), marks the squares with tissue. ``thumbnail``, uint8 (h, w, 3), shows the whole slide; one of its pixels is
    ``thumbnail_scale`` pixels of level 0. ``computed_share`` is the number of pixels computed for each pixel of the
    map.
    """

    slide: str
    width_px: int
    height_px: int
    slide_um_per_px: float
    um_per_px: float
    scale: float
    logits: np.ndarray
    tissue: np.ndarray
    thumbnail: np.ndarray
    thumbnail_scale: float
    computed_share: float
    manifest: Manifest

    @property
    def probability(self) -> np.ndarray:
        """Calibrated probabilities, float32 (rows, columns), NaN without tissue."""
        return self.manifest.probability(self.logits).astype(np.float32)

    @property
    def step_px(self) -> int:
        """Side of a square in pixels of the plane."""
        return self.manifest.label_px

    @property
    def margin_px(self) -> float:
        """Pixels of the plane between the border of a patch and its centre square."""
        return (self.manifest.patch_px - self.manifest.label_px) / 2

    @property
    def margin_squares(self) -> float:
        """``margin_px`` in squares."""
        return self.margin_px / self.step_px

    @property
    def step_um(self) -> float:
        """Side of a square in micrometres."""
        return self.step_px * self.um_per_px

    @property
    def step_level0_px(self) -> float:
        """Side of a square in pixels of level 0."""
        return self.step_px * self.scale

    def corner_level0_px(self, row: int, column: int) -> tuple[float, float]:
        """Return x and y of a square's upper left corner, in pixels of level 0."""
        return (column + self.margin_squares) * self.step_level0_px, (row + self.margin_squares) * self.step_level0_px
