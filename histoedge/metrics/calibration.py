"""Calibration of probabilities: temperature, logit offset, calibration error, Brier score."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from histoedge.edge.errors import DataError
from histoedge.metrics.interval import Floats, Interval, checked, covariance_of, normal_interval, paired

MEAN_SCALED_LOGITS = (0.01, 20.0)
"""Range of the mean of |logit / T|. Without it, scores no better than chance lead to an infinite T, and separated
classes to T = 0, where probabilities are 0 or 1 and no threshold separates them."""


def temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Return the T above 0 that minimises the negative log likelihood of the probabilities sigmoid(logit / T).

    Temperature scaling: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks". The negative
    log likelihood is convex in 1 / T; the root of its slope is its only minimum. The order of scores and the AUC do not
    change.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.

    Returns:
        T, limited to the range of ``MEAN_SCALED_LOGITS``; 1 if all logits are 0.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = checked(labels, logits)

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
    """Return the offset of all logits that minimises the negative log likelihood together with a temperature.

    Platt 1999, "Probabilistic outputs for support vector machines": sigmoid(a z + b) fitted for a above 0 and b, here
    as a (z + b / a). The order of scores and the AUC do not change.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.

    Returns:
        b / a, limited to the largest absolute logit; 0 if all logits are 0.

    Raises:
        DataError: as ``auc``.
    """
    positive, curves = checked(labels, logits)
    size = float(np.abs(curves[0]).mean())
    if size == 0:
        return 0.0

    def loss(parameters: Floats) -> tuple[float, Floats]:
        inverse, offset = parameters
        shifted = curves[0] / size + offset
        error = special.expit(inverse * shifted) - positive
        value = float(np.mean(np.logaddexp(0, inverse * shifted) - positive * inverse * shifted))
        return value, np.array([np.mean(error * shifted), np.mean(error) * inverse])

    limit = float(np.abs(curves[0]).max()) / size
    solution = optimize.minimize(
        loss, np.array([size, 0.0]), jac=True, method="L-BFGS-B", bounds=[MEAN_SCALED_LOGITS, (-limit, limit)]
    )
    return float(solution.x[1]) * size


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> float:
    """Return the expected calibration error (ECE) of the probability of tumour.

    It is 0 if, for every p, a share p of the patches with probability p is positive. Naeini, Cooper and Hauskrecht
    2015: ``bins`` of equal width over the probability of class 1 from 0 to 1, the last one including 1;
    |mean probability - share of positives| of each bin, weighted by its share of the patches. The confidence-binned
    error of Guo et al. 2017 instead bins max(p, 1 - p) from 0.5 to 1 and compares it with the share of correct
    decisions: patches with 0.2 and with 0.8 are then in the same bin, and errors of opposite sign cancel. On few
    patches both are above 0 even for a perfectly calibrated model, because shares vary by chance.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        bins: at least 1.

    Raises:
        DataError: lengths differ or are 0, labels are not 0 or 1, probabilities not within 0..1, or ``bins`` below 1.
    """
    if bins < 1:
        raise DataError(f"calibration error with {bins} bins; expected at least one")
    positive, shares = _shares(labels, probabilities)
    bin_of = np.minimum((shares * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=shares - positive, minlength=bins)
    return float(np.abs(gaps).sum() / len(shares))


def cross_entropy(labels: ArrayLike, logits: ArrayLike) -> float:
    """Return the mean binary cross-entropy of labels (n,), 0 or 1, under the probabilities sigmoid(logits), in nats.

    Raises:
        DataError: as ``auc``.
    """
    positive, (scores,) = checked(labels, logits)
    return float(np.mean(np.logaddexp(0, np.where(positive, -scores, scores))))


def brier(labels: ArrayLike, probabilities: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the Brier score, mean (probability - label)^2, with the normal interval of a mean, clipped to 0..1.

    Brier 1950. 0: certain and right; 0.25: p = 0.5 for every patch; 1: certain and wrong. The score depends on both
    calibration and separation.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        level: confidence, between 0 and 1.

    Raises:
        DataError: lengths differ or are 0, labels are not 0 or 1, or probabilities not within 0..1.
    """
    positive, shares = _shares(labels, probabilities)
    squares = (shares - positive) ** 2
    variance = float(covariance_of(squares[None])[0, 0])
    low, high = normal_interval(float(squares.mean()), variance, level)
    return Interval(float(squares.mean()), max(0.0, low), min(1.0, high))


def _shares(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Return which patches are positive, and their probabilities (n,); at least one, within 0..1."""
    positive, curves = paired(labels, probabilities)
    shares = curves[0]
    if len(shares) == 0:
        raise DataError("0 patches; expected at least one")
    if shares.min() < 0 or shares.max() > 1:
        raise DataError(f"probabilities from {shares.min():.6g} to {shares.max():.6g}; expected 0 to 1")
    return positive, shares
