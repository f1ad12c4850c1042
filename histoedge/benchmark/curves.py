"""What a page draws, small enough for a results file: an ROC curve, a reliability diagram, quantiles of times."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from histoedge import metrics
from histoedge.benchmark.timing import Rounds
from histoedge.edge.errors import DataError

MOST_ROC_POINTS = 200
RELIABILITY_BINS = 10
N_QUANTILES = 101  # 0 to 100 per cent
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Roc:
    """Corners of an ROC curve from (0, 0) to (1, 1): shares of negatives and of positives called positive."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self, lo=0, hi=1)
        for name in ("fpr", "tpr"):
            values = getattr(self, name)
            if len(values) < 2 or list(values) != sorted(values):
                raise DataError(f"{name} must hold at least two numbers that never fall")


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """By bins of the calibrated probability, empty ones left out: its mean, how many patches, how many are positive."""

    probability: tuple[float, ...]
    patches: tuple[int, ...]
    positives: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self, lo=0, hi=math.inf)
        for patches, positives, probability in zip(self.patches, self.positives, self.probability, strict=True):
            if type(patches) is not int or type(positives) is not int or not 0 <= positives <= patches >= 1:
                raise DataError(f"{positives} of {patches} patches are positive: not a share of whole patches")
            if probability > 1:
                raise DataError(f"a probability of {probability:g}")


Curve = TypeVar("Curve", Roc, Reliability)


def roc(labels: np.ndarray, scores: np.ndarray, *, most: int = MOST_ROC_POINTS) -> Roc:
    """The corners of the ROC curve; of more than ``most`` as many, both ends among them.

    Kept are then those at even steps along fpr + tpr, so that none of what is left out lies more than 2 / ``most``
    away.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        most: at least 2.

    Raises:
        DataError: as ``metrics.auc``.
    """
    metrics.auc(labels, scores)  # refuses what has no curve
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    positive, ordered = np.asarray(labels)[order].astype(bool), np.asarray(scores)[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of equal scores: they pass together
    hits, alarms = (np.append(0, np.cumsum(found)[last]) for found in (positive, ~positive))
    turns = np.diff(alarms[:-1]) * np.diff(hits[1:]) != np.diff(alarms[1:]) * np.diff(hits[:-1])
    corner = np.concatenate([[True], turns, [True]])
    fpr, tpr = alarms[corner] / alarms[-1], hits[corner] / hits[-1]
    if len(tpr) > most:
        chosen = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, most) - 1e-9).clip(0, len(tpr) - 1))
        fpr, tpr = fpr[chosen], tpr[chosen]
    return Roc(fpr=_rounded(fpr), tpr=_rounded(tpr))


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = RELIABILITY_BINS) -> Reliability:
    """How often patches given a probability are positive: ``bins`` of equal width over 0 to 1, the last with its end.

    Args:
        labels: (n,), 0 or 1.
        probabilities: (n,), 0 to 1.
        bins: at least 1.

    Raises:
        DataError: as ``metrics.calibration_error``.
    """
    metrics.calibration_error(labels, probabilities, bins=bins)  # refuses what is no probability
    shares = np.asarray(probabilities, np.float64)
    bin_of = np.minimum((shares * bins).astype(int), bins - 1)
    patches, positives, sums = (np.bincount(bin_of, weights, bins) for weights in (None, labels, shares))
    held = patches > 0
    return Reliability(
        probability=_rounded(sums[held] / patches[held]),
        patches=tuple(int(count) for count in patches[held]),
        positives=tuple(int(count) for count in positives[held]),
    )


def ms_quantiles(rounds_ms: Rounds) -> tuple[float, ...]:
    """``N_QUANTILES`` quantiles of all times at even shares, the fastest call first, the slowest last."""
    return _rounded(np.quantile(np.concatenate(list(rounds_ms)), np.linspace(0, 1, N_QUANTILES)))


def curve_from(kind: type[Curve], content: Any) -> Curve:
    """A curve from what JSON holds of it.

    Raises:
        DataError: keys or values that do not belong.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise DataError(f"expected an object with the keys {', '.join(names)}")
    return kind(**{name: numbers_from(values) for name, values in content.items()})


def numbers_from(content: Any) -> tuple[Any, ...]:
    """Finite numbers from what JSON holds of them.

    Raises:
        DataError: anything but a list of numbers.
    """
    if not isinstance(content, list) or any(type(one) not in (int, float) or not math.isfinite(one) for one in content):
        raise DataError("expected a list of numbers")
    return tuple(content)


def ms_quantiles_from(content: Any) -> tuple[float, ...]:
    """``ms_quantiles`` from what JSON holds of it.

    Raises:
        DataError: not ``N_QUANTILES`` times above 0 that never fall.
    """
    found = numbers_from(content)
    if len(found) != N_QUANTILES or found[0] <= 0 or list(found) != sorted(found):
        raise DataError(f"expected {N_QUANTILES} times above 0 that never fall")
    return found


def _check(curve: Any, *, lo: float, hi: float) -> None:
    values = [getattr(curve, field.name) for field in dataclasses.fields(curve)]
    if len({len(one) for one in values}) != 1 or not values[0]:
        raise DataError("its lists must be of one length, at least 1")
    if any(not lo <= number <= hi for one in values for number in one):
        raise DataError(f"a number outside {lo:g} to {hi:g}")


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
