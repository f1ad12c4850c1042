"""What patches look like, in a few numbers: do those of a scanner look like those of the training data?"""

import numpy as np

HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
"""Optical density of the stain in red, green and blue: Ruifrok and Johnston 2001, Quantification of Histochemical
Staining by Color Deconvolution."""
EOSIN = np.array([0.072, 0.990, 0.105])
"""The same of the other stain, from the same paper."""

QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


def statistics(patches: np.ndarray) -> dict[str, np.ndarray]:
    """One number per patch and statistic, float64 (N,), of uint8 (N, H, W, 3) RGB pixels.

    ``red``, ``green``, ``blue``: mean of the channel, 0..255. ``contrast``: standard deviation of the grey value.
    ``sharpness``: mean absolute difference between the grey values of neighbours. ``haematoxylin``, ``eosin``: mean
    optical density of the stain (``stains``).
    """
    grey = patches.mean(axis=3, dtype=np.float32)
    steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    means, densities = patches.mean(axis=(1, 2), dtype=np.float64), stains(patches)
    found = {
        **dict(zip(("red", "green", "blue"), means.T, strict=True)),
        "contrast": grey.std(axis=(1, 2)),
        "sharpness": (steps[0] + steps[1]) / 2,
        **dict(zip(("haematoxylin", "eosin"), densities.T, strict=True)),
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def stains(patches: np.ndarray) -> np.ndarray:
    """Mean haematoxylin and eosin density, float (N, 2), of uint8 (N, H, W, 3) RGB pixels.

    Colour deconvolution of Ruifrok and Johnston 2001, their third vector the cross product of the two stains.
    """
    two = np.stack([HAEMATOXYLIN, EOSIN])
    two = two / np.linalg.norm(two, axis=1, keepdims=True)
    third = np.cross(two[0], two[1])
    unmix = np.linalg.inv(np.vstack([two, third / np.linalg.norm(third)]))
    return np.asarray((_DENSITY[patches].mean(axis=(1, 2)) @ unmix)[:, :2])


def describe(patches: np.ndarray) -> dict[str, dict[str, float]]:
    """By the name of a statistic its ``mean`` and ``QUANTILES`` over the patches, in five digits."""
    return {
        name: {
            key: float(f"{value:.5g}")
            for key, value in {
                "mean": values.mean(),
                **dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True)),
            }.items()
        }
        for name, values in statistics(patches).items()
    }
