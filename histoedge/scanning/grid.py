"""The grid of fields: which squares a plane has, and which pixels each field covers.

All fields have the same size, so an interpreter prepares for one shape. Neighbouring fields overlap by exactly the
pixels that a patch extends beyond its centre square. The logit of a square is therefore that of its own patch,
independent of the field it is computed in.
"""

from dataclasses import dataclass

import numpy as np

from histoedge.edge import Manifest
from histoedge.edge.errors import ConfigError, DataError
from histoedge.scanning.plane import Plane

SMALLEST_SQUARE_PX = 8  # smaller squares would make a map of as many pixels as the slide
STRIP = 8  # width of the strips in which a slide is read, in fields: tiles shared by two rows of a strip are read once


def grid_of(plane: Plane, manifest: Manifest, field_px: int) -> "Grid":
    """Return the squares whose patches lie inside the plane, in fields of at most ``field_px``.

    Raises:
        ConfigError: the model's stride does not divide a square, the squares are too small, or the field is smaller
            than a patch.
        DataError: the plane is smaller than a patch.
    """
    step_px = manifest.label_px
    if step_px < SMALLEST_SQUARE_PX:
        raise ConfigError(
            f"the model's labels are for squares of {step_px} px; a scan needs {SMALLEST_SQUARE_PX} px or more"
        )
    if manifest.is_dense and step_px % manifest.stride_px:
        raise ConfigError(
            f"the model's stride is {manifest.stride_px} px; a scan needs a stride that divides the labelled square, "
            f"{step_px} px"
        )
    if field_px < manifest.patch_px:
        raise ConfigError(f"a field of {field_px} px is smaller than a patch of {manifest.patch_px} px")
    if min(plane.width, plane.height) < manifest.patch_px:
        raise DataError(
            f"{plane.slide.path}: {plane.width} x {plane.height} px at {plane.um_per_px:.4g} um per px; expected at "
            f"least {manifest.patch_px} x {manifest.patch_px} px"
        )
    rows, columns = ((side - manifest.patch_px) // step_px + 1 for side in (plane.height, plane.width))
    per_field = (field_px - manifest.patch_px) // step_px + 1
    return Grid(rows, columns, per_field=per_field, step_px=step_px, patch_px=manifest.patch_px)


@dataclass(frozen=True)
class Grid:
    """The squares of a plane and their fields: ``rows`` and ``columns`` count squares, ``per_field`` a field's side.

    A square has ``step_px``, its patch ``patch_px`` pixels of the plane on each side.
    """

    rows: int
    columns: int
    per_field: int
    step_px: int
    patch_px: int

    def fields(self, squares: np.ndarray) -> list[int]:
        """Return the numbers of the fields with at least one of ``squares``, bool (rows, columns), strip by strip."""
        down, across = -(-self.rows // self.per_field), self.field_columns
        padded = np.zeros((down * self.per_field, across * self.per_field), bool)
        padded[: self.rows, : self.columns] = squares
        any_square = padded.reshape(down, self.per_field, across, self.per_field).any(axis=(1, 3))
        return sorted(map(int, np.flatnonzero(any_square)), key=self._place_in_strips)

    def _place_in_strips(self, number: int) -> tuple[int, int, int]:
        row, column = divmod(number, self.field_columns)
        return column // STRIP, row, column

    def window(self, number: int) -> tuple[slice, slice]:
        """Return the rows and columns of the map that a field covers."""
        top, left = (self.per_field * place for place in divmod(number, self.field_columns))
        return slice(top, min(top + self.per_field, self.rows)), slice(left, min(left + self.per_field, self.columns))

    @property
    def field_columns(self) -> int:
        """Number of fields side by side."""
        return -(-self.columns // self.per_field)

    @property
    def field_px(self) -> int:
        """Side of a field in pixels: the patches of its squares."""
        return (self.per_field - 1) * self.step_px + self.patch_px

    def computed_share(self, *, is_dense: bool) -> float:
        """Return the pixels that the model computes for each pixel of a map, in fields or patch by patch."""
        if is_dense:
            return (self.field_px / (self.per_field * self.step_px)) ** 2
        return (self.patch_px / self.step_px) ** 2


def pixels_of(plane: Plane, grid: Grid, number: int) -> np.ndarray:
    """Return the pixels of a field, uint8 (field_px, field_px, 3); white beyond the slide.

    Raises:
        DataError: the slide is damaged.
    """
    rows, columns = grid.window(number)
    return plane.read(columns.start * grid.step_px, rows.start * grid.step_px, grid.field_px, grid.field_px)
