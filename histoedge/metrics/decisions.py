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
    """Numbers of decisions that differ: from negative to positive, and from positive to negative."""

    to_positive: int
    to_negative: int

    @property
    def count(self) -> int:
        """Both directions together."""
        return self.to_positive + self.to_negative

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p value for equally likely directions; 1 without flips.

        McNemar 1947, with the binomial distribution instead of its chi-squared approximation, which is wrong for few
        flips.
        """
        return float(stats.binomtest(self.to_positive, self.count, 0.5).pvalue) if self.count else 1.0


def proportion(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return ``successes`` of ``trials`` as a share with Wilson's score interval (Wilson 1927).

    Raises:
        DataError: no trials, or successes not within 0..trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise DataError(f"{successes} of {trials} is not a share; expected 0 to all of at least one")
    share, z = successes / trials, float(stats.norm.ppf(0.5 + level / 2))
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def sensitivity(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Interval:
    """Return the share of positives with a score at or above ``threshold``, with Wilson's 95 % interval.

    The interval assumes a threshold fixed before; for one chosen on the same patches it is slightly too narrow.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = checked(labels, scores)
    return proportion(int(np.count_nonzero(curves[0][positive] >= threshold)), int(positive.sum()))


def specificity(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Interval:
    """Return the share of negatives with a score below ``threshold``, with Wilson's 95 % interval; see ``sensitivity``.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = checked(labels, scores)
    return proportion(int(np.count_nonzero(curves[0][~positive] < threshold)), int((~positive).sum()))


def threshold_of_sensitivity(labels: ArrayLike, scores: ArrayLike, at_least: float) -> float:
    """Return the largest threshold with a sensitivity of at least ``at_least``. It is the score of a positive.

    Tied scores get the same decision.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite; a score at or above the threshold is positive.
        at_least: above 0, at most 1.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = checked(labels, scores)
    positives = np.sort(curves[0][positive])
    return float(positives[len(positives) - _min_count(at_least, len(positives))])


def threshold_of_specificity(labels: ArrayLike, scores: ArrayLike, at_least: float) -> float:
    """Return the smallest score that as a threshold has a specificity of at least ``at_least``; infinity if none has.

    Any number between the next lower score and this one makes the same decisions; only scores are considered. With
    infinity nothing is positive. Tied scores get the same decision.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite; a score below the threshold is negative.
        at_least: above 0, at most 1.

    Raises:
        DataError: as ``auc``, or ``at_least`` out of range.
    """
    positive, curves = checked(labels, scores)
    negatives = np.sort(curves[0][~positive])
    above = curves[0][curves[0] > negatives[_min_count(at_least, len(negatives)) - 1]]
    return float(above.min(initial=math.inf))


def sensitivity_at_specificity(
    labels: ArrayLike, scores: ArrayLike, at_least: float = 0.95, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the sensitivity at ``threshold_of_specificity``; the bootstrap chooses the threshold in each resample.

    Percentile bootstrap over patches, positives and negatives separately (Efron and Tibshirani 1993, chapter 13; for
    this measure Platt, Hanley and Yang 2000). The interval includes the uncertainty of the threshold, which Wilson's
    does not. Resamples are exact without sorting: the k-th smallest of n values drawn from n has the rank
    floor(n Beta(k, n - k + 1)), and the number of drawn positives above it is binomial.

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
    k = _min_count(at_least, n)
    random = np.random.default_rng(seed)
    ranks = np.minimum((n * random.beta(k, n - k + 1, BOOTSTRAP_RESAMPLES)).astype(int), n - 1)
    above = (m - np.searchsorted(positives, negatives[[k - 1, *ranks]], side="right")) / m
    low, high = percentile_interval(random.binomial(m, above[1:]) / m, level)
    return Interval(float(above[0]), low, high)


def specificity_at_sensitivity(
    labels: ArrayLike, scores: ArrayLike, at_least: float = 0.95, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the specificity at ``threshold_of_sensitivity``; the bootstrap chooses the threshold in each resample.

    As ``sensitivity_at_specificity`` with the classes exchanged.

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
    """Return the number of patches with different decisions; a logit at the threshold is positive.

    Args:
        logits_a: any shape.
        logits_b: the same shape.
        threshold_logit: the decision threshold as a logit.

    Raises:
        DataError: the shapes differ.
    """
    return flips_from(logits_b, logits_a, threshold_logit=threshold_logit).count


def flips_from(reference_logits: ArrayLike, logits: ArrayLike, *, threshold_logit: float = 0.0) -> Flips:
    """Return the different decisions by direction, from the reference to these logits.

    Args:
        reference_logits: any shape, finite.
        logits: the same shape, finite.
        threshold_logit: the decision threshold as a logit.

    Raises:
        DataError: the shapes differ.
    """
    before, after = np.asarray(reference_logits), np.asarray(logits)
    if before.shape != after.shape:
        raise DataError(f"logits of shape {after.shape} cannot be compared with logits of shape {before.shape}")
    old, new = before >= threshold_logit, after >= threshold_logit
    return Flips(int(np.count_nonzero(new & ~old)), int(np.count_nonzero(old & ~new)))


def _min_count(share: float, count: int) -> int:
    """Return the smallest number that is at least this share of ``count``."""
    if not 0 < share <= 1:
        raise DataError(f"a share of {share:g}; expected above 0, at most 1")
    return max(1, math.ceil(share * count - 1e-9))  # 0.07 x 100 is slightly above 7 in floating point
