"""Decisions at a threshold: sensitivity, specificity, operating points, flips."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from histoedge.edge.errors import DataError
from histoedge.metrics.interval import BOOTSTRAP_RESAMPLES, Interval, checked, percentile_interval


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
    positive, curves = checked(labels, scores)
    return proportion(int(np.count_nonzero(curves[0][positive] >= threshold)), int(positive.sum()))


def specificity(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Interval:
    """The share of negatives that score below ``threshold``, with Wilson's 95 % interval; see ``sensitivity``.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = checked(labels, scores)
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
    positive, curves = checked(labels, scores)
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
    positive, curves = checked(labels, scores)
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
    positive, curves = checked(labels, scores)
    positives, negatives = np.sort(curves[0][positive]), np.sort(curves[0][~positive])
    m, n = len(positives), len(negatives)
    k = _fewest(at_least, n)
    random = np.random.default_rng(seed)
    ranks = np.minimum((n * random.beta(k, n - k + 1, BOOTSTRAP_RESAMPLES)).astype(int), n - 1)
    above = (m - np.searchsorted(positives, negatives[[k - 1, *ranks]], side="right")) / m
    low, high = percentile_interval(random.binomial(m, above[1:]) / m, level)
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
    positive, curves = checked(labels, scores)
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


def _fewest(share: float, count: int) -> int:
    """The fewest of ``count`` that are at least this share of them."""
    if not 0 < share <= 1:
        raise DataError(f"a share of {share:g} cannot be asked for; expected above 0, at most 1")
    return max(1, math.ceil(share * count - 1e-9))  # 0.07 x 100 is a little more than 7 in floating point
