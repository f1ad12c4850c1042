"""Perturbations that imitate another laboratory, scanner or archive: named and deterministic.

Each patch is changed independently and without random numbers, so chunking a split does not change the result. Labels
are assumed to stay valid; the centre square stays in the centre.
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

DAB = (0.27, 0.57, 0.78)  # completes the basis; absent from these slides
STAINS = np.array([drift.HAEMATOXYLIN, drift.EOSIN, DAB], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
"""Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001)."""

_RUIFROK = "amounts in haematoxylin-eosin-DAB optical density (Ruifrok and Johnston 2001)"
_TELLEZ = "Tellez et al. 2019, Medical Image Analysis 58, 101544"
_HENDRYCKS = "Hendrycks and Dietterich 2019, ICLR: severities of CIFAR-10-C, for small images"


@dataclass(frozen=True)
class Perturbation:
    """``apply`` maps uint8 (N, side, side, 3) to the same shape and dtype; ``size`` and ``source`` describe it."""

    apply: Callable[[np.ndarray], np.ndarray]
    size: str
    source: str


def perturbed(patches: np.ndarray, name: str) -> np.ndarray:
    """Apply the perturbation of that name to patches, uint8 (N, side, side, 3) RGB, and return a new array.

    Raises:
        DataError: no perturbation of that name, or patches of another shape or dtype.
    """
    if name not in PERTURBATIONS:
        raise DataError(f"no perturbation {name!r}; choose from: {', '.join(PERTURBATIONS)}")
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[1:] != (*2 * patches.shape[1:2], 3):
        raise DataError(f"patches: {patches.dtype} {patches.shape}, expected uint8 (N, side, side, 3)")
    return PERTURBATIONS[name].apply(patches)


def _stained(patches: np.ndarray, *, haematoxylin: float, eosin: float) -> np.ndarray:
    """Multiply the amounts of the two stains; white does not change."""
    gains = np.array([[haematoxylin], [eosin], [1.0]], np.float32)
    mixing = np.linalg.inv(STAINS) @ (gains * STAINS)
    density = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    return _rounded(256 * np.exp(-(density[patches] @ mixing)) - 1)


def _lit(patches: np.ndarray, *, factor: float) -> np.ndarray:
    """Multiply the light; values above 255 saturate, as in an over-exposed scan."""
    return np.asarray(_rounded(np.arange(256) * factor)[patches])


def _blurred(patches: np.ndarray, *, sigma_px: float) -> np.ndarray:
    return _rounded(ndimage.gaussian_filter(patches.astype(np.float32), (0, sigma_px, sigma_px, 0), mode="mirror"))


def _compressed(patches: np.ndarray, *, quality: int) -> np.ndarray:
    """Encode and decode as JPEG with chroma at half resolution, the default of most writers."""
    changed = np.empty_like(patches)
    for place, patch in enumerate(patches):
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        changed[place] = np.asarray(Image.open(file))
    return changed


def _scaled(patches: np.ndarray, *, factor: float) -> np.ndarray:
    """Scale about the centre; the area around a smaller picture is filled with its mirror image."""
    patch_px = patches.shape[1]
    side = patch_px / factor
    margin = max(0, int(np.ceil((side - patch_px) / 2)))
    corner = margin + (patch_px - side) / 2
    box = (corner, corner, corner + side, corner + side)
    padded = np.pad(patches, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    changed = np.empty_like(patches)
    for place, patch in enumerate(padded):
        changed[place] = Image.fromarray(patch).resize((patch_px, patch_px), Image.Resampling.BICUBIC, box=box)
    return changed


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


PERTURBATIONS: Mapping[str, Perturbation] = {
    "stain_towards_haematoxylin": Perturbation(
        partial(_stained, haematoxylin=1.2, eosin=0.8),
        "haematoxylin x 1.2, eosin x 0.8",
        f"{_RUIFROK}; size chosen by us, similar to {_TELLEZ}",
    ),
    "stain_towards_eosin": Perturbation(
        partial(_stained, haematoxylin=0.8, eosin=1.2),
        "haematoxylin x 0.8, eosin x 1.2",
        f"{_RUIFROK}; size chosen by us, similar to {_TELLEZ}",
    ),
    "brightness_minus_15_percent": Perturbation(
        partial(_lit, factor=0.85), "light x 0.85", f"size chosen by us, similar to {_TELLEZ}"
    ),
    "brightness_plus_15_percent": Perturbation(
        partial(_lit, factor=1.15), "light x 1.15", f"size chosen by us, similar to {_TELLEZ}"
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
        partial(_scaled, factor=0.9), "0.9 times as large", "a scanner whose pixels are 10 % larger than stated"
    ),
    "scale_plus_10_percent": Perturbation(
        partial(_scaled, factor=1.1), "1.1 times as large", "a scanner whose pixels are 10 % smaller than stated"
    ),
}
"""The perturbations of ``perturbed``, by name."""
