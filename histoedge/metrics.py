"""How good and how fast, with intervals: AUC after DeLong, decision flips, ratios of medians.

Labels are 0 or 1; scores and logits are any finite numbers where larger means more tumour.
"""

from collections.abc import Sequence
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


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Mann and Whitney 1947 through midranks, O(n log n).

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.

    Raises:
        DataError: lengths differ, labels are not 0 or 1, one class is absent, or a score is not finite.
    """
    positive, ordered = _checked(labels, scores)
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(ordered[0], method="average")
    return float((ranks[positive].sum() - m * (m + 1) / 2) / (m * n))


def delong(labels: ArrayLike, scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """The AUC with DeLong's confidence interval, clipped to 0..1.

    DeLong, DeLong and Clarke-Pearson 1988, by the fast algorithm of Sun and Xu 2014 (IEEE Signal
    Processing Letters 21, 1389). With perfect separation the estimated variance is 0 and the interval
    has no width: it says nothing about how many patches there were.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        level: confidence, between 0 and 1.

    Raises:
        DataError: as ``auc``.
    """
    areas, covariance = _areas(labels, scores)
    low, high = _normal(areas[0], covariance[0, 0], level)
    return Interval(float(areas[0]), max(0.0, low), min(1.0, high))


def delong_difference(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, *, level: float = 0.95) -> Interval:
    """AUC of a minus AUC of b on the same patches, with DeLong's interval for paired curves, clipped to -1..1.

    Scores that rank alike give 0 with no width. Papers as for ``delong``.

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
    low, high = _normal(difference, variance, level)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def flips(logits_a: ArrayLike, logits_b: ArrayLike, *, threshold_logit: float = 0.0) -> int:
    """How many patches fall on the other side of the threshold; at the threshold counts as positive.

    Args:
        logits_a: any shape.
        logits_b: the same shape.
        threshold_logit: the decision threshold, as a logit.

    Raises:
        DataError: the shapes differ.
    """
    a, b = np.asarray(logits_a), np.asarray(logits_b)
    if a.shape != b.shape:
        raise DataError(f"logits of shape {a.shape} cannot be compared with logits of shape {b.shape}")
    return int(np.count_nonzero((a >= threshold_logit) != (b >= threshold_logit)))


def median(rounds_ms: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """The median of all times with a bootstrap interval that draws whole rounds.

    Times within a round share what the machine was doing, so rounds are the unit that is independent
    (a block bootstrap: Kuensch 1989; percentile interval: Efron and Tibshirani 1993, chapter 13).

    Args:
        rounds_ms: (rounds, runs), milliseconds, finite.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: not (rounds, runs) with at least one of each, or not finite.
    """
    rounds = _rounds(rounds_ms)
    drawn = _drawn_medians((rounds,), seed)[0]
    low, high = _percentiles(drawn, level)
    return Interval(float(np.median(rounds)), low, high)


def ratio_of_medians(a_ms: ArrayLike, b_ms: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Median time of a over median time of b, with an interval that keeps interleaved rounds together.

    Round k of a and round k of b ran next to each other, so both are drawn together and a drift of the
    machine cancels. Method as for ``median``.

    Args:
        a_ms: (rounds, runs), milliseconds above 0.
        b_ms: (rounds, runs of b), as many rounds.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: the number of rounds differs, a time is not finite, or the median of b is 0.
    """
    a, b = _rounds(a_ms), _rounds(b_ms)
    if len(a) != len(b):
        raise DataError(f"{len(a)} rounds cannot be paired with {len(b)}; measure both in the same run")
    if np.min(b) <= 0:
        raise DataError("a reference time of 0 ms gives no ratio; the clock is too coarse for this model")
    drawn_a, drawn_b = _drawn_medians((a, b), seed)
    low, high = _percentiles(drawn_a / drawn_b, level)
    return Interval(float(np.median(a) / np.median(b)), low, high)


def _checked(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
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
    positive = found.astype(bool)
    if not 0 < positive.sum() < len(positive):
        raise DataError(f"{positive.sum()} positives among {len(positive)} labels; an AUC needs both classes")
    return positive, np.stack(curves)


def _areas(labels: ArrayLike, *scores: ArrayLike) -> tuple[Floats, Floats]:
    """AUCs (curves,) and their covariance (curves, curves): Sun and Xu 2014, algorithm 2."""
    positive, curves = _checked(labels, *scores)
    x, y = curves[:, positive], curves[:, ~positive]
    m, n = x.shape[1], y.shape[1]
    together = stats.rankdata(np.concatenate([x, y], axis=1), axis=1, method="average")
    above = together[:, :m] - stats.rankdata(x, axis=1, method="average")  # negatives below each positive
    below = together[:, m:] - stats.rankdata(y, axis=1, method="average")  # positives below each negative
    areas = above.sum(axis=1) / (m * n)
    return areas, _covariance(above / n) + _covariance(1 - below / m)


def _covariance(components: Floats) -> Floats:
    """Covariance of the means of (curves, k) structural components; 0 for one patch, which shows no spread."""
    k = components.shape[1]
    if k < 2:
        return np.zeros((len(components), len(components)))
    return np.asarray(np.cov(components).reshape(len(components), len(components)) / k)


def _normal(centre: float, variance: float, level: float) -> tuple[float, float]:
    half = float(stats.norm.ppf(0.5 + level / 2)) * max(0.0, float(variance)) ** 0.5
    return float(centre) - half, float(centre) + half


def _rounds(times: ArrayLike) -> Floats:
    rounds = np.asarray(times, np.float64)
    if rounds.ndim != 2 or rounds.size == 0:
        raise DataError(f"times have shape {rounds.shape}; expected (rounds, runs) with at least one of each")
    if not np.isfinite(rounds).all():
        raise DataError("times hold values that are not finite")
    return rounds


def _drawn_medians(cells: Sequence[Floats], seed: int) -> list[Floats]:
    """Medians (resamples,) of each cell's times, the same rounds drawn for all cells."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(cells[0]), (BOOTSTRAP_RESAMPLES, len(cells[0])))
    return [np.median(cell[drawn].reshape(BOOTSTRAP_RESAMPLES, -1), axis=1) for cell in cells]


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)
