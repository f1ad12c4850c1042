"""Ranking of tumour above normal patches: AUC with DeLong's intervals."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from histoedge.metrics.interval import Floats, Interval, checked, covariance_of, normal_interval


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: the probability that a positive scores above a negative, ties as half.

    Mann and Whitney 1947 with midranks, O(n log n).

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.

    Raises:
        DataError: lengths differ, labels are not 0 or 1, a class is missing, or a score is not finite.
    """
    positive, ordered = checked(labels, scores)
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(ordered[0], method="average")
    return float((ranks[positive].sum() - m * (m + 1) / 2) / (m * n))


def delong(labels: ArrayLike, scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the AUC with DeLong's confidence interval, clipped to 0..1.

    DeLong, DeLong and Clarke-Pearson 1988, with the fast algorithm of Sun and Xu 2014 (IEEE Signal Processing Letters
    21, 1389). With perfect separation the estimated variance is 0 and the interval has no width, for any number of
    patches.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        level: confidence, between 0 and 1.

    Raises:
        DataError: as ``auc``.
    """
    areas, covariance = _areas(labels, scores)
    low, high = normal_interval(areas[0], covariance[0, 0], level)
    return Interval(float(areas[0]), max(0.0, low), min(1.0, high))


def delong_difference(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return AUC of a minus AUC of b on the same patches with DeLong's paired interval, clipped to -1..1.

    For scores with the same order it is 0 without width. Papers as for ``delong``.

    Args:
        labels: (n,), 0 or 1, both present.
        scores_a: (n,), finite.
        scores_b: (n,), finite.
        level: confidence, between 0 and 1.

    Raises:
        DataError: as ``auc``.
    """
    areas, covariance = _areas(labels, scores_a, scores_b)
    difference = float(areas[0] - areas[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    low, high = normal_interval(difference, variance, level)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def _areas(labels: ArrayLike, *scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return AUCs (curves,) and their covariance (curves, curves): Sun and Xu 2014, algorithm 2."""
    positive, curves = checked(labels, *scores)
    x, y = curves[:, positive], curves[:, ~positive]
    m, n = x.shape[1], y.shape[1]
    together = stats.rankdata(np.concatenate([x, y], axis=1), axis=1, method="average")
    above = together[:, :m] - stats.rankdata(x, axis=1, method="average")  # negatives below each positive
    below = together[:, m:] - stats.rankdata(y, axis=1, method="average")  # positives below each negative
    areas = above.sum(axis=1) / (m * n)
    return areas, covariance_of(above / n) + covariance_of(1 - below / m)
