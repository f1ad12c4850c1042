"""How good and how fast, with intervals: AUC, calibration, operating points, decision flips, ratios of medians.

Labels are 0 or 1; scores and logits are any finite numbers where larger means more tumour. Intervals over patches take
these to be independent, which patches of one slide are not: ``bench.slides`` draws whole slides where they are known.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from histoedge.edge.errors import DataError

Floats = NDArray[np.float64]

BOOTSTRAP_RESAMPLES = 2000
MEAN_SCALED_LOGITS = (0.01, 20.0)
"""The least and largest mean of |logit / T| that a temperature may give. Without an end, scores no better than chance
ask for an infinite T, and separated classes for 0, at which probabilities are 0 or 1 and no threshold divides them."""


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


@dataclass(frozen=True)
class Flips:
    """Decisions that differ: negative to ``to_positive`` positive ones, positive to ``to_negative`` negative ones."""

    to_positive: int
    to_negative: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.to_positive + self.to_negative

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p value: both directions equally likely; 1 where nothing flips.

        McNemar 1947, with the binomial in place of its chi-squared approximation, so that few flips count right.
        """
        return float(stats.binomtest(self.to_positive, self.count, 0.5).pvalue) if self.count else 1.0


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


def temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """The T above 0 for which the probabilities sigmoid(logit / T) have the smallest negative log likelihood.

    Temperature scaling: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks". The negative
    log likelihood is convex in 1 / T, so the root of its slope is its one minimum. No order changes: the AUC stays.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.

    Returns:
        T, at the end that ``MEAN_SCALED_LOGITS`` sets where the minimum lies beyond; 1 where all logits are 0.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = _checked(labels, logits)

    def slope(inverse: float) -> float:
        return float(np.mean((special.expit(inverse * curves[0]) - positive) * curves[0]))

    size = float(np.abs(curves[0]).mean())
    if size == 0:
        return 1.0
    flattest, steepest = (mean / size for mean in MEAN_SCALED_LOGITS)
    if slope(flattest) >= 0:
        return 1 / flattest
    if slope(steepest) <= 0:
        return 1 / steepest
    return float(1 / optimize.brentq(slope, flattest, steepest, xtol=1e-12 / size))


def logit_offset(labels: ArrayLike, logits: ArrayLike) -> float:
    """What to add to all logits so that with a temperature after it the negative log likelihood is smallest.

    Platt 1999, "Probabilistic outputs for support vector machines": sigmoid(a z + b) fitted for a above 0 and b, here
    as a (z + b / a). No order changes: the AUC stays.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.

    Returns:
        b / a, within the largest logit's size; 0 where all logits are 0.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = _checked(labels, logits)
    size = float(np.abs(curves[0]).mean())
    if size == 0:
        return 0.0

    def loss(parameters: Floats) -> tuple[float, Floats]:
        inverse, offset = parameters
        moved = curves[0] / size + offset
        error = special.expit(inverse * moved) - positive
        value = float(np.mean(np.logaddexp(0, inverse * moved) - positive * inverse * moved))
        return value, np.array([np.mean(error * moved), np.mean(error) * inverse])

    reach = float(np.abs(curves[0]).max()) / size
    found = optimize.minimize(
        loss, np.array([size, 0.0]), jac=True, method="L-BFGS-B", bounds=[MEAN_SCALED_LOGITS, (-reach, reach)]
    )
    return float(found.x[1]) * size


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error of the probability of tumour: 0 where of the patches given p a share p is positive.

    Naeini, Cooper and Hauskrecht 2015: ``bins`` of equal width over the probability of class 1, 0 to 1, the last one
    with its end; |mean probability - share of positives| of each, weighted with its share of the patches. The
    confidence-binned error of Guo et al. 2017 instead bins max(p, 1 - p) over 0.5 to 1 and compares it with the share
    of right decisions: there the patches given 0.2 and those given 0.8 share a bin, and errors of opposite sign cancel.
    Both are above 0 for a perfectly calibrated model on few patches, because shares scatter.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        bins: at least 1.

    Raises:
        DataError: lengths differ or are 0, labels are not 0 or 1, probabilities not within 0..1, or ``bins`` below 1.
    """
    if bins < 1:
        raise DataError(f"a calibration error in {bins} bins; expected at least one")
    positive, shares = _shares(labels, probabilities)
    bin_of = np.minimum((shares * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=shares - positive, minlength=bins)
    return float(np.abs(gaps).sum() / len(shares))


def cross_entropy(labels: ArrayLike, logits: ArrayLike) -> float:
    """The mean binary cross-entropy of labels (n,), 0 or 1, under the probabilities sigmoid(logits), in nats.

    Raises:
        DataError: as ``auc``.
    """
    positive, (scores,) = _checked(labels, logits)
    return float(np.mean(np.logaddexp(0, np.where(positive, -scores, scores))))


def brier(labels: ArrayLike, probabilities: ArrayLike, *, level: float = 0.95) -> Interval:
    """Brier score, mean (probability - label)^2, with the normal interval of a mean, clipped to 0..1.

    Brier 1950. 0 is certain and right, 0.25 is what p = 0.5 for everything gets, 1 is certain and wrong. It rewards
    calibration and separation together.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        level: confidence, between 0 and 1.

    Raises:
        DataError: lengths differ or are 0, labels are not 0 or 1, or probabilities not within 0..1.
    """
    positive, shares = _shares(labels, probabilities)
    squares = (shares - positive) ** 2
    variance = float(_covariance(squares[None])[0, 0])
    low, high = _normal(float(squares.mean()), variance, level)
    return Interval(float(squares.mean()), max(0.0, low), min(1.0, high))


def proportion(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """``successes`` of ``trials`` as a share, with Wilson's score interval (Wilson 1927).

    Raises:
        DataError: no trials, or successes not within 0..trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise DataError(f"{successes} of {trials} is no share")
    share, z = successes / trials, float(stats.norm.ppf(0.5 + level / 2))
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def sensitivity(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Interval:
    """The share of positives that score ``threshold`` or above, with Wilson's 95 % interval.

    The interval takes the threshold as given before: of one chosen on the same patches it is somewhat too narrow.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = _checked(labels, scores)
    return proportion(int(np.count_nonzero(curves[0][positive] >= threshold)), int(positive.sum()))


def specificity(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Interval:
    """The share of negatives that score below ``threshold``, with Wilson's 95 % interval; see ``sensitivity``.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = _checked(labels, scores)
    return proportion(int(np.count_nonzero(curves[0][~positive] < threshold)), int((~positive).sum()))


def threshold_of_sensitivity(labels: ArrayLike, scores: ArrayLike, at_least: float) -> float:
    """The largest threshold whose sensitivity is at least ``at_least``: the score of a positive. Ties pass together.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite; ``threshold`` or above is called positive.
        at_least: above 0, at most 1.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = _checked(labels, scores)
    found = np.sort(curves[0][positive])
    return float(found[len(found) - _fewest(at_least, len(found))])


def threshold_of_specificity(labels: ArrayLike, scores: ArrayLike, at_least: float) -> float:
    """The smallest score whose specificity as a threshold is at least ``at_least``; infinity where no score's is.

    Any number above the next lower score would decide alike, so the smallest is sought among the scores. Infinity
    calls nothing positive. Ties pass together.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite; below the threshold is called negative.
        at_least: above 0, at most 1.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = _checked(labels, scores)
    negatives = np.sort(curves[0][~positive])
    above = curves[0][curves[0] > negatives[_fewest(at_least, len(negatives)) - 1]]
    return float(above.min(initial=math.inf))


def sensitivity_at_specificity(
    labels: ArrayLike, scores: ArrayLike, at_least: float = 0.95, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """The sensitivity at ``threshold_of_specificity``, with a bootstrap interval that chooses the threshold anew.

    Percentile bootstrap over patches, positives and negatives apart (Efron and Tibshirani 1993, chapter 13; for this
    measure Platt, Hanley and Yang 2000), so the interval holds the threshold's own uncertainty, which Wilson's does
    not. Its draws are exact without any sorting: the k-th smallest of n values drawn from n has the rank
    floor(n Beta(k, n - k + 1)), and how many drawn positives lie above it is binomial.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        at_least: the specificity, above 0, at most 1.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = _checked(labels, scores)
    positives, negatives = np.sort(curves[0][positive]), np.sort(curves[0][~positive])
    m, n = len(positives), len(negatives)
    k = _fewest(at_least, n)
    random = np.random.default_rng(seed)
    ranks = np.minimum((n * random.beta(k, n - k + 1, BOOTSTRAP_RESAMPLES)).astype(int), n - 1)
    above = (m - np.searchsorted(positives, negatives[[k - 1, *ranks]], side="right")) / m
    low, high = _percentiles(random.binomial(m, above[1:]) / m, level)
    return Interval(float(above[0]), low, high)


def specificity_at_sensitivity(
    labels: ArrayLike, scores: ArrayLike, at_least: float = 0.95, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """The specificity at ``threshold_of_sensitivity``, with a bootstrap interval that chooses the threshold anew.

    ``sensitivity_at_specificity`` with the classes changing places; arguments and errors are its own.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        at_least: the sensitivity, above 0, at most 1.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = _checked(labels, scores)
    return sensitivity_at_specificity(~positive, -curves[0], at_least, level=level, seed=seed)


def flips(logits_a: ArrayLike, logits_b: ArrayLike, *, threshold_logit: float = 0.0) -> int:
    """How many patches fall on the other side of the threshold; at the threshold counts as positive.

    Args:
        logits_a: any shape.
        logits_b: the same shape.
        threshold_logit: the decision threshold, as a logit.

    Raises:
        DataError: the shapes differ.
    """
    return flips_from(logits_b, logits_a, threshold_logit=threshold_logit).count


def flips_from(reference_logits: ArrayLike, logits: ArrayLike, *, threshold_logit: float = 0.0) -> Flips:
    """Which way decisions went from the reference's to these, as ``flips`` counts them.

    Args:
        reference_logits: any shape, finite.
        logits: the same shape, finite.
        threshold_logit: the decision threshold, as a logit.

    Raises:
        DataError: the shapes differ.
    """
    before, after = np.asarray(reference_logits), np.asarray(logits)
    if before.shape != after.shape:
        raise DataError(f"logits of shape {after.shape} cannot be compared with logits of shape {before.shape}")
    was, now = before >= threshold_logit, after >= threshold_logit
    return Flips(int(np.count_nonzero(now & ~was)), int(np.count_nonzero(was & ~now)))


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
    drawn = np.random.default_rng(seed).integers(0, len(rounds), (BOOTSTRAP_RESAMPLES, len(rounds)))
    medians = np.median(rounds[drawn].reshape(BOOTSTRAP_RESAMPLES, -1), axis=1)
    low, high = _percentiles(medians, level)
    return Interval(float(np.median(rounds)), low, high)


def ratio_of_medians(a_ms: ArrayLike, b_ms: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Median time of a over median time of b in a round, the median over rounds, with a bootstrap interval.

    Round k of a and round k of b ran next to each other, so what the machine did then hits both alike and cancels,
    however few rounds it lasted. The quotient of the medians over all rounds does not cancel it: where some rounds are
    slow, either median may fall among them alone (``benchmarks/aa.py``). Whole rounds are drawn, as for ``median``.

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
    ratios = np.median(a, axis=1) / np.median(b, axis=1)
    return median(ratios[:, None], level=level, seed=seed)


def _checked(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """As ``_paired``, both classes present."""
    positive, curves = _paired(labels, *scores)
    if not 0 < positive.sum() < len(positive):
        raise DataError(f"{positive.sum()} positives among {len(positive)} labels; expected both classes")
    return positive, curves


def _paired(labels: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
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


def _shares(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Which patches are positive, and their probabilities (n,), at least one, within 0..1."""
    positive, curves = _paired(labels, probabilities)
    shares = curves[0]
    if len(shares) == 0:
        raise DataError("0 patches; expected at least one")
    if shares.min() < 0 or shares.max() > 1:
        raise DataError(f"probabilities from {shares.min():.6g} to {shares.max():.6g}; expected 0 to 1")
    return positive, shares


def _fewest(share: float, count: int) -> int:
    """The fewest of ``count`` that are at least this share of them."""
    if not 0 < share <= 1:
        raise DataError(f"a share of {share:g} cannot be asked for; expected above 0, at most 1")
    return max(1, math.ceil(share * count - 1e-9))  # 0.07 x 100 is a little more than 7 in floating point


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


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, (0.5 - level / 2, 0.5 + level / 2))
    return float(low), float(high)
