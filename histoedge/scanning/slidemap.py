"""The map of a slide: what every output is made from."""

from dataclasses import dataclass

import numpy as np

from histoedge.edge import Manifest

STEP_PX = 32
"""Between verdicts, in pixels of the plane: the side of the square, mid-patch, that a patch's label speaks of."""


@dataclass(frozen=True, kw_only=True)
class SlideMap:
    """Verdicts on a slide.

    The slide is seen on a plane of ``um_per_px`` micrometres per pixel, the model's; its origin is the slide's, and one
    of its pixels is ``scale`` pixels of the slide at full resolution (level 0), across and down. Row i, column j of
    ``logits``, float32 (rows, columns), speaks of the square of ``STEP_PX`` plane pixels whose corner is at
    (i + 1, j + 1) x ``STEP_PX``: the middle of the patch whose corner is at (i, j) x ``STEP_PX``. It is NaN where there
    is no tissue. ``thumbnail``, uint8 (h, w, 3), shows the whole slide, ``thumbnail_scale`` level-0 pixels to one of
    its own; ``tissue``, bool (rows, columns), says which squares hold tissue.
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
    manifest: Manifest

    @property
    def probability(self) -> np.ndarray:
        """Calibrated probabilities, float32 (rows, columns), NaN where there is no tissue."""
        return self.manifest.probability(self.logits).astype(np.float32)

    @property
    def step_um(self) -> float:
        """Side of a square in micrometres."""
        return STEP_PX * self.um_per_px

    @property
    def step_level0_px(self) -> float:
        """Side of a square in pixels of level 0."""
        return STEP_PX * self.scale

    def corner_level0_px(self, row: int, column: int) -> tuple[float, float]:
        """x and y of a square's upper left corner, in pixels of level 0."""
        return (column + 1) * self.step_level0_px, (row + 1) * self.step_level0_px
