"""Intervals, and the checks of labels and scores that all metrics share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from histoedge.edge.errors import DataError

Floats = NDArray[np.float64]

BOOTSTRAP_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval, 95 % by default."""

    value: float
    lo: float
    hi: float

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the value; infinite for a value of 0."""
        return (self.hi - self.lo) / abs(self.value) if self.value else float("inf")

    @property
    def standard_error(self) -> float:
        """Standard error, if the bounds are a normal 95 % interval, as DeLong's are unless clipped."""
        return (self.hi - self.lo) / (2 * float(stats.norm.ppf(0.975)))


def value_of(interval: Interval | None) -> float | None:
    """Return the value without its bounds; None for None."""
    return None if interval is None else interval.value


def checked(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """As ``paired``, and check that both classes are present."""
    positive, curves = paired(labels, *scores)
    if not 0 < positive.sum() < len(positive):
        raise DataError(f"{positive.sum()} positives among {len(positive)} labels; expected both classes")
    return positive, curves


def paired(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Return which patches are positive, and the scores as (curves, n)."""
    flat_labels = np.asarray(labels).reshape(-1)
    curves = [np.asarray(each, np.float64).reshape(-1) for each in scores]
    for curve in curves:
        if len(curve) != len(flat_labels):
            raise DataError(f"{len(flat_labels)} labels for {len(curve)} scores; expected one score per label")
        if not np.isfinite(curve).all():
            raise DataError(f"{np.count_nonzero(~np.isfinite(curve))} of {len(curve)} scores are not finite")
    if not np.isin(flat_labels, (0, 1)).all():
        raise DataError(f"labels {np.setdiff1d(flat_labels, (0, 1))[:3].tolist()}; expected 0 or 1")
    return flat_labels.astype(bool), np.stack(curves)


def covariance_of(components: Floats) -> Floats:
    """Return the covariance of the means of (curves, k) structural components; 0 for one patch, which has no spread."""
    k = components.shape[1]
    if k < 2:
        return np.zeros((len(components), len(components)))
    return np.asarray(np.cov(components).reshape(len(components), len(components)) / k)


def normal_interval(centre: float, variance: float, level: float) -> tuple[float, float]:
    """Return the bounds of a normal interval around ``centre``."""
    half = float(stats.norm.ppf(0.5 + level / 2)) * max(0.0, float(variance)) ** 0.5
    return float(centre) - half, float(centre) + half


def percentile_interval(resampled: Floats, level: float) -> tuple[float, float]:
    """Return the bounds of a percentile interval of bootstrap resamples."""
    low, high = np.quantile(resampled, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)
