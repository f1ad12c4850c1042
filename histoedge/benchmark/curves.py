"""Curves in a results file, for the plots of the page: ROC, reliability, quantiles of times."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from histoedge import metrics
from histoedge.benchmark.timing import Rounds
from histoedge.edge.errors import DataError

MAX_ROC_POINTS = 200
RELIABILITY_BINS = 10
N_QUANTILES = 101  # 0 to 100 per cent
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Roc:
    """Corners of an ROC curve from (0, 0) to (1, 1): false positive rate and true positive rate."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self, lo=0, hi=1)
        for name in ("fpr", "tpr"):
            values = getattr(self, name)
            if len(values) < 2 or list(values) != sorted(values):
                raise DataError(f"{name}: expected at least two numbers in rising order")


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """For each bin of the calibrated probability that is not empty: mean probability, patches, positives among them."""

    probability: tuple[float, ...]
    patches: tuple[int, ...]
    positives: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self, lo=0, hi=math.inf)
        for patches, positives, probability in zip(self.patches, self.positives, self.probability, strict=True):
            if type(patches) is not int or type(positives) is not int or not 0 <= positives <= patches >= 1:
                raise DataError(
                    f"{positives} of {patches} patches are positive; expected whole numbers, positives at most patches"
                )
            if probability > 1:
                raise DataError(f"a probability of {probability:g}; expected 0 to 1")


Curve = TypeVar("Curve", Roc, Reliability)


def roc(labels: np.ndarray, scores: np.ndarray, *, max_points: int = MAX_ROC_POINTS) -> Roc:
    """Return the corners of the ROC curve, at most ``max_points`` of them.

    If there are more, corners at even steps along fpr + tpr are chosen, the two ends included. A corner that is left
    out is at most 2 / ``max_points`` away from a chosen one.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        max_points: at least 2.

    Raises:
        DataError: as ``metrics.auc``.
    """
    metrics.auc(labels, scores)  # raises DataError for invalid labels or scores
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    positive, ordered = np.asarray(labels)[order].astype(bool), np.asarray(scores)[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)  # equal scores pass a threshold together
    true_positives, false_positives = (np.append(0, np.cumsum(group)[last_of_tie]) for group in (positive, ~positive))
    dx, dy = np.diff(false_positives), np.diff(true_positives)
    corner = np.concatenate([[True], dx[:-1] * dy[1:] != dx[1:] * dy[:-1], [True]])
    fpr, tpr = false_positives[corner] / false_positives[-1], true_positives[corner] / true_positives[-1]
    if len(tpr) > max_points:
        chosen = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, max_points) - 1e-9).clip(0, len(tpr) - 1))
        fpr, tpr = fpr[chosen], tpr[chosen]
    return Roc(fpr=_rounded(fpr), tpr=_rounded(tpr))


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = RELIABILITY_BINS) -> Reliability:
    """Return the share of positives by probability, in ``bins`` of equal width from 0 to 1; the last bin includes 1.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        bins: at least 1.

    Raises:
        DataError: as ``metrics.calibration_error``.
    """
    metrics.calibration_error(labels, probabilities, bins=bins)  # raises DataError for invalid probabilities
    shares = np.asarray(probabilities, np.float64)
    bin_of = np.minimum((shares * bins).astype(int), bins - 1)
    patches, positives, sums = (np.bincount(bin_of, weights, bins) for weights in (None, labels, shares))
    used = patches > 0
    return Reliability(
        probability=_rounded(sums[used] / patches[used]),
        patches=tuple(int(count) for count in patches[used]),
        positives=tuple(int(count) for count in positives[used]),
    )


def ms_quantiles(rounds_ms: Rounds) -> tuple[float, ...]:
    """Return ``N_QUANTILES`` quantiles of all times at even shares, from the fastest call to the slowest."""
    return _rounded(np.quantile(np.concatenate(list(rounds_ms)), np.linspace(0, 1, N_QUANTILES)))


def curve_from(kind: type[Curve], content: Any) -> Curve:
    """Return a curve from its JSON object.

    Raises:
        DataError: wrong keys or values.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise DataError(f"expected an object with the keys {', '.join(names)}")
    return kind(**{name: numbers_from(values) for name, values in content.items()})


def numbers_from(content: Any) -> tuple[Any, ...]:
    """Return finite numbers from a JSON list.

    Raises:
        DataError: not a list of finite numbers.
    """
    if not isinstance(content, list) or any(
        type(each) not in (int, float) or not math.isfinite(each) for each in content
    ):
        raise DataError("expected a list of numbers")
    return tuple(content)


def ms_quantiles_from(content: Any) -> tuple[float, ...]:
    """Return ``ms_quantiles`` from a JSON list.

    Raises:
        DataError: not ``N_QUANTILES`` times above 0 in rising order.
    """
    times = numbers_from(content)
    if len(times) != N_QUANTILES or times[0] <= 0 or list(times) != sorted(times):
        raise DataError(f"expected {N_QUANTILES} times above 0 in rising order")
    return times


def _check(curve: Any, *, lo: float, hi: float) -> None:
    values = [getattr(curve, field.name) for field in dataclasses.fields(curve)]
    if len({len(numbers) for numbers in values}) != 1 or not values[0]:
        raise DataError("lists of different lengths or empty lists; expected equal lengths of at least 1")
    if any(not lo <= number <= hi for numbers in values for number in numbers):
        raise DataError(f"a number outside {lo:g} to {hi:g}")


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
