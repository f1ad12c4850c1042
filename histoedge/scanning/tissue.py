"""Where there is tissue: colour on a bright ground, without pen, dust and black borders."""

import numpy as np

from histoedge.scanning.plane import Plane
from histoedge.scanning.slidemap import STEP_PX

PER_SQUARE = 4  # pixels of the picture that the mask is made on, per side of a square
SATURATIONS = (0.06, 0.15)  # Otsu splits plain glass too, and tissue where there is no glass: its threshold stays here
DARKEST = 0.15  # brightness: below it is black border, or nothing that light came through
PEN_HUES = (0.17, 0.69)  # yellow over green to blue: no stain of haematoxylin and eosin
BAND_PX, REACH_PX = 256, 4  # of the picture at once; the smoothing's reach at a spread of 1 px
LEAST_TISSUE_UM = 100.0  # side of the smallest square of tissue, and of the largest hole, that counts


def overview(plane: Plane, per_square: int = PER_SQUARE) -> np.ndarray:
    """The whole slide, uint8 (h, w, 3), ``per_square`` pixels for each ``STEP_PX`` of the plane."""
    coarse = Plane(
        plane.slide,
        um_per_px=plane.um_per_px * STEP_PX / per_square,
        slide_um_per_px=plane.um_per_px / plane.scale,
        kept_bytes=0,
        same=1e-9,
    )
    return coarse.read(0, 0, coarse.width, coarse.height)


def mask(picture: np.ndarray, um_per_px: float) -> np.ndarray:
    """Where the picture, uint8 (h, w, 3), shows tissue, bool (h, w).

    Otsu's threshold on saturation (Otsu 1979; as CLAM, Lu et al. 2021, does), kept within ``SATURATIONS``. Pen is what
    has hues that the stains have not. Specks and holes smaller than ``LEAST_TISSUE_UM`` squared are dropped.
    """
    from skimage import filters, morphology  # type: ignore[attr-defined]

    hue, saturation, brightness = _colours(picture)
    seen = brightness > DARKEST
    values = saturation[seen]
    if values.size == 0 or values.max() <= SATURATIONS[0]:
        return np.zeros(picture.shape[:2], bool)
    threshold = np.clip(filters.threshold_otsu(values), *SATURATIONS)
    pen = (hue > PEN_HUES[0]) & (hue < PEN_HUES[1])
    found = seen & (saturation > threshold) & ~pen
    least = max(1, round((LEAST_TISSUE_UM / um_per_px) ** 2))
    found = morphology.remove_small_objects(found, max_size=least - 1)
    return np.asarray(morphology.remove_small_holes(found, max_size=least - 1))


def _colours(picture: np.ndarray) -> np.ndarray:
    """Hue, saturation and brightness of the smoothed picture, float32 (3, h, w), band by band to save memory."""
    from skimage import color, filters  # type: ignore[attr-defined]

    colours = np.empty((3, *picture.shape[:2]), np.float32)
    for top in range(0, len(picture), BAND_PX):
        above, below = min(REACH_PX, top), top + BAND_PX + REACH_PX
        smooth = filters.gaussian(picture[top - above : below], 1, channel_axis=-1, truncate=REACH_PX)
        hsv = color.rgb2hsv(smooth[above : above + BAND_PX])
        colours[:, top : top + BAND_PX] = np.moveaxis(hsv, -1, 0)
    return colours


def squares(found: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which squares of the map hold tissue, bool (rows, columns), from the mask of the ``overview``."""
    padded = np.zeros(((rows + 2) * PER_SQUARE, (columns + 2) * PER_SQUARE), bool)
    height, width = (min(a, b) for a, b in zip(found.shape, padded.shape, strict=True))
    padded[:height, :width] = found[:height, :width]
    whole = padded.reshape(rows + 2, PER_SQUARE, columns + 2, PER_SQUARE).any(axis=(1, 3))
    return np.asarray(whole)[1:-1, 1:-1]
