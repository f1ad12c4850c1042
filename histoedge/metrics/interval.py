"""Intervals of 95 %, and what every metric checks about its input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from histoedge.edge.errors import DataError

Floats = NDArray[np.float64]

BOOTSTRAP_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval."""

    value: float
    lo: float
    hi: float

    @property
    def relative_width(self) -> float:
        """The interval's width as a share of the value; infinite where the value is 0."""
        return (self.hi - self.lo) / abs(self.value) if self.value else float("inf")

    @property
    def standard_error(self) -> float:
        """Of a value whose bounds are a normal 95 % interval, as DeLong's are where they are not clipped."""
        return (self.hi - self.lo) / (2 * float(stats.norm.ppf(0.975)))


def checked(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """As ``_paired``, both classes present."""
    positive, curves = paired(labels, *scores)
    if not 0 < positive.sum() < len(positive):
        raise DataError(f"{positive.sum()} positives among {len(positive)} labels; expected both classes")
    return positive, curves


def paired(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Which patches are positive, and the scores as (curves, n)."""
    found = np.asarray(labels).reshape(-1)
    curves = [np.asarray(one, np.float64).reshape(-1) for one in scores]
    for curve in curves:
        if len(curve) != len(found):
            raise DataError(f"{len(found)} labels for {len(curve)} scores; expected one score for every label")
        if not np.isfinite(curve).all():
            raise DataError(f"{np.count_nonzero(~np.isfinite(curve))} of {len(curve)} scores are not finite")
    if not np.isin(found, (0, 1)).all():
        raise DataError(f"labels must be 0 or 1, found {np.setdiff1d(found, (0, 1))[:3].tolist()}")
    return found.astype(bool), np.stack(curves)


def covariance_of(components: Floats) -> Floats:
    """Covariance of the means of (curves, k) structural components; 0 for one patch, which shows no spread."""
    k = components.shape[1]
    if k < 2:
        return np.zeros((len(components), len(components)))
    return np.asarray(np.cov(components).reshape(len(components), len(components)) / k)


def normal_interval(centre: float, variance: float, level: float) -> tuple[float, float]:
    """The ends of a normal interval around ``centre``."""
    half = float(stats.norm.ppf(0.5 + level / 2)) * max(0.0, float(variance)) ** 0.5
    return float(centre) - half, float(centre) + half


def percentile_interval(drawn: Floats, level: float) -> tuple[float, float]:
    """The ends of a percentile interval of bootstrap draws."""
    low, high = np.quantile(drawn, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)
