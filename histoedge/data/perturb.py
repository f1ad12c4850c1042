"""Patches as another laboratory, scanner or archive would have given them: one named step away, the same every time.

No step draws at random, and each patch is changed by itself: the result does not depend on how a split is cut into
chunks. The label is taken to stay, and the centre square stays the centre.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

from histoedge.edge import drift
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

DAB = (0.27, 0.57, 0.78)  # completes the basis: there is none in these slides
STAINS = np.array([drift.HAEMATOXYLIN, drift.EOSIN, DAB], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
"""Optical densities in red, green, blue of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001)."""

_RUIFROK = "amounts in haematoxylin-eosin-DAB optical density (Ruifrok and Johnston 2001)"
_TELLEZ = "Tellez et al. 2019, Medical Image Analysis 58, 101544"
_HENDRYCKS = "Hendrycks and Dietterich 2019, ICLR: levels of CIFAR-10-C, made for small pictures"


@dataclass(frozen=True)
class Perturbation:
    """``apply`` changes uint8 (N, 96, 96, 3) into the same shape and type; ``size`` and ``source`` are for people."""

    apply: Callable[[np.ndarray], np.ndarray]
    size: str
    source: str


def perturbed(patches: np.ndarray, name: str) -> np.ndarray:
    """The patches, uint8 (N, 96, 96, 3) RGB, after the step of ``PERTURBATIONS`` with that name; a new array.

    Raises:
        DataError: no such step, or patches of another shape or type.
    """
    if name not in PERTURBATIONS:
        raise DataError(f"no perturbation is called {name!r}; there are: {', '.join(PERTURBATIONS)}")
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[1:] != (PATCH_PX, PATCH_PX, 3):
        expected = f"uint8 (N, {PATCH_PX}, {PATCH_PX}, 3)"
        raise DataError(f"patches are {patches.dtype} {patches.shape}; a perturbation expects {expected}")
    return PERTURBATIONS[name].apply(patches)


def _stained(patches: np.ndarray, *, haematoxylin: float, eosin: float) -> np.ndarray:
    """Amounts of the two stains multiplied; where there is no stain, white, nothing changes."""
    gains = np.array([[haematoxylin], [eosin], [1.0]], np.float32)
    mixing = np.linalg.inv(STAINS) @ (gains * STAINS)
    density = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    return _rounded(256 * np.exp(-(density[patches] @ mixing)) - 1)


def _lit(patches: np.ndarray, *, factor: float) -> np.ndarray:
    """More or less light; what is above 255 saturates, as in an over-exposed scan."""
    return np.asarray(_rounded(np.arange(256) * factor)[patches])


def _blurred(patches: np.ndarray, *, sigma_px: float) -> np.ndarray:
    return _rounded(ndimage.gaussian_filter(patches.astype(np.float32), (0, sigma_px, sigma_px, 0), mode="mirror"))


def _compressed(patches: np.ndarray, *, quality: int) -> np.ndarray:
    """Through a JPEG file with colours at half resolution, as most writers do."""
    found = np.empty_like(patches)
    for place, patch in enumerate(patches):
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        found[place] = np.asarray(Image.open(file))
    return found


def _scaled(patches: np.ndarray, *, factor: float) -> np.ndarray:
    """Magnified about the centre; what comes into view around a smaller picture is its mirror image."""
    side = PATCH_PX / factor
    rim = max(0, int(np.ceil((side - PATCH_PX) / 2)))
    corner = rim + (PATCH_PX - side) / 2
    box = (corner, corner, corner + side, corner + side)
    wider = np.pad(patches, ((0, 0), (rim, rim), (rim, rim), (0, 0)), mode="reflect")
    found = np.empty_like(patches)
    for place, patch in enumerate(wider):
        found[place] = Image.fromarray(patch).resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC, box=box)
    return found


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


PERTURBATIONS: Mapping[str, Perturbation] = {
    "stain_towards_haematoxylin": Perturbation(
        partial(_stained, haematoxylin=1.2, eosin=0.8),
        "haematoxylin x 1.2, eosin x 0.8",
        f"{_RUIFROK}; its size our choice, of the kind of {_TELLEZ}",
    ),
    "stain_towards_eosin": Perturbation(
        partial(_stained, haematoxylin=0.8, eosin=1.2),
        "haematoxylin x 0.8, eosin x 1.2",
        f"{_RUIFROK}; its size our choice, of the kind of {_TELLEZ}",
    ),
    "brightness_minus_15_percent": Perturbation(
        partial(_lit, factor=0.85), "light x 0.85", f"our choice, of the kind of {_TELLEZ}"
    ),
    "brightness_plus_15_percent": Perturbation(
        partial(_lit, factor=1.15), "light x 1.15", f"our choice, of the kind of {_TELLEZ}"
    ),
    "blur_0.6_px": Perturbation(
        partial(_blurred, sigma_px=0.6), "Gaussian of sigma 0.6 px", f"{_HENDRYCKS}, severity 2 of 5"
    ),
    "blur_1_px": Perturbation(
        partial(_blurred, sigma_px=1.0), "Gaussian of sigma 1.0 px", f"{_HENDRYCKS}, severity 5 of 5"
    ),
    "jpeg_quality_80": Perturbation(
        partial(_compressed, quality=80), "JPEG quality 80", f"{_HENDRYCKS}, severity 1 of 5"
    ),
    "jpeg_quality_40": Perturbation(
        partial(_compressed, quality=40), "JPEG quality 40", f"{_HENDRYCKS}, severity 5 of 5"
    ),
    "scale_minus_10_percent": Perturbation(
        partial(_scaled, factor=0.9), "0.9 times as large", "a scanner of 10 % larger pixels than it says"
    ),
    "scale_plus_10_percent": Perturbation(
        partial(_scaled, factor=1.1), "1.1 times as large", "a scanner of 10 % smaller pixels than it says"
    ),
}
"""What ``perturbed`` knows, by name."""
