"""The tissue mask: coloured pixels on a bright background, without pen marks, dust and black borders."""

import numpy as np

from histoedge.scanning.grid import Grid
from histoedge.scanning.plane import Plane

OVERVIEW_UM = 7.776  # about the side of a pixel of the overview, 8 px at 0.972 um/px
SATURATIONS = (0.06, 0.15)  # limits of Otsu's threshold, which also splits slides of glass alone or tissue alone
DARKEST = 0.15  # brightness of black borders and opaque objects is below it
PEN_HUES = (0.17, 0.69)  # from yellow through green to blue: not a hue of haematoxylin or eosin
BAND_PX, REACH_PX = 256, 4  # rows smoothed at once; reach of the Gaussian of sigma 1 px
LEAST_TISSUE_UM = 100.0  # smaller tissue and smaller holes than a square of this side are dropped


def pixels_per_square(step_px: int, um_per_px: float) -> int:
    """Return how many pixels of the overview a square of ``step_px`` at ``um_per_px`` has on each side."""
    return max(1, min(step_px, round(step_px * um_per_px / OVERVIEW_UM)))


def overview(plane: Plane, px_per_pixel: float) -> np.ndarray:
    """Return the whole slide, uint8 (h, w, 3), with ``px_per_pixel`` pixels of the plane in each of its pixels."""
    coarse = Plane(
        plane.slide,
        um_per_px=plane.um_per_px * px_per_pixel,
        slide_um_per_px=plane.um_per_px / plane.scale,
        kept_bytes=0,
        same=1e-9,
    )
    return coarse.read(0, 0, coarse.width, coarse.height)


def mask(picture: np.ndarray, um_per_px: float) -> np.ndarray:
    """Return where the picture, uint8 (h, w, 3), shows tissue, bool (h, w).

    The mask is Otsu's threshold on saturation (Otsu 1979; as in CLAM, Lu et al. 2021), clipped to ``SATURATIONS``.
    Pixels with hues that the stains do not have are pen. Specks and holes smaller than ``LEAST_TISSUE_UM`` squared are
    dropped.
    """
    from skimage import filters, morphology  # type: ignore[attr-defined]

    hue, saturation, brightness = _colours(picture)
    bright = brightness > DARKEST
    values = saturation[bright]
    if values.size == 0 or values.max() <= SATURATIONS[0]:
        return np.zeros(picture.shape[:2], bool)
    threshold = np.clip(filters.threshold_otsu(values), *SATURATIONS)
    pen = (hue > PEN_HUES[0]) & (hue < PEN_HUES[1])
    coloured = bright & (saturation > threshold) & ~pen
    least = max(1, round((LEAST_TISSUE_UM / um_per_px) ** 2))
    without_specks = morphology.remove_small_objects(coloured, max_size=least - 1)
    return np.asarray(morphology.remove_small_holes(without_specks, max_size=least - 1))


def _colours(picture: np.ndarray) -> np.ndarray:
    """Return hue, saturation and brightness of the smoothed picture, float32 (3, h, w), by bands to save memory."""
    from skimage import color, filters  # type: ignore[attr-defined]

    colours = np.empty((3, *picture.shape[:2]), np.float32)
    for top in range(0, len(picture), BAND_PX):
        above, below = min(REACH_PX, top), top + BAND_PX + REACH_PX
        smooth = filters.gaussian(picture[top - above : below], 1, channel_axis=-1, truncate=REACH_PX)
        hsv = color.rgb2hsv(smooth[above : above + BAND_PX])
        colours[:, top : top + BAND_PX] = np.moveaxis(hsv, -1, 0)
    return colours


def squares(mask: np.ndarray, grid: Grid, per_square: int) -> np.ndarray:
    """Return which squares of the map contain tissue, bool (rows, columns), from the mask of the ``overview``.

    A pixel of the mask that belongs to two squares counts in both.
    """
    twice_margin = (grid.patch_px - grid.step_px) * per_square  # in pixels of the mask, times 2 x step_px
    start, rest = divmod(twice_margin, 2 * grid.step_px)
    if rest:
        mask = _or_next(_or_next(mask, 0), 1)
    rows, columns = grid.rows, grid.columns
    padded = np.zeros((rows * per_square, columns * per_square), bool)
    inner = mask[start : start + padded.shape[0], start : start + padded.shape[1]]
    padded[: inner.shape[0], : inner.shape[1]] = inner
    return np.asarray(padded.reshape(rows, per_square, columns, per_square).any(axis=(1, 3)))


def _or_next(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return where a pixel or the next one along the axis is set."""
    after = np.roll(mask, -1, axis)
    after[(slice(None),) * axis + (-1,)] = False
    return np.asarray(mask | after)
