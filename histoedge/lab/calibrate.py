"""Calibration on ``valid``: a temperature, and operating points with their measured sensitivity and specificity.

Compression computes the calibration and stores it in the checkpoint: an export needs no data. The logits are simulated
ones of the deployed file. An int8 file may differ by one quantum, which moves a few patches in a thousand across a
threshold.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from histoedge import metrics
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.manifest import OperatingPoint
from histoedge.lab import backend, batches, weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

SHARES = (0.95, 0.90)
"""Sensitivities and specificities with an operating point each."""


@dataclass(frozen=True)
class Calibration:
    """Temperature and operating points of a network, fitted on ``valid``; the threshold 0.5 needs no fit."""

    temperature: float
    operating_points: tuple[OperatingPoint, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the calibration as a JSON object."""
        return dataclasses.asdict(self)


def from_json(document: Mapping[str, Any]) -> Calibration:
    """Return the calibration from the object that ``as_json`` returned.

    Raises:
        KeyError, TypeError, ValueError: not such an object.
    """
    points = tuple(OperatingPoint(**point) for point in document["operating_points"])
    return Calibration(float(document["temperature"]), points)


def fit_calibration(labels: ArrayLike, logits: ArrayLike) -> Calibration:
    """Fit the calibration to the patches of ``valid``.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, of the deployed file, rounding included.

    Raises:
        DataError: a label other than 0 and 1, a single class, or a logit that is not finite.
    """
    low, high = manifests.BOUNDS["temperature"]  # logits of a network that learnt nothing are all alike
    temperature = min(max(metrics.temperature(labels, logits), low), high)
    thresholds = [
        (f"sensitivity {share:.2f}", metrics.threshold_of_sensitivity(labels, logits, share)) for share in SHARES
    ]
    thresholds += [
        (f"specificity {share:.2f}", metrics.threshold_of_specificity(labels, logits, share)) for share in SHARES
    ]
    points = []
    for name, threshold in thresholds:
        sensitivity, specificity = (
            measure(labels, logits, threshold) for measure in (metrics.sensitivity, metrics.specificity)
        )
        points.append(
            OperatingPoint(
                name=name,
                threshold=float(special.expit(_between_logits(logits, threshold) / temperature)),
                sensitivity=sensitivity.value,
                sensitivity_lo=sensitivity.lo,
                sensitivity_hi=sensitivity.hi,
                specificity=specificity.value,
                specificity_lo=specificity.lo,
                specificity_hi=specificity.hi,
                n_positive=int(np.count_nonzero(labels)),
                n_negative=int(np.size(labels) - np.count_nonzero(labels)),
            )
        )
    return Calibration(temperature, tuple(points))


def calibrate_network(network: Network, arrays: Arrays, valid: Split) -> Calibration:
    """Fit the calibration of a network; ``arrays`` as from ``weights.get_weights``, batch norm included."""
    return fit_calibration(valid.labels, _logits(network, arrays, valid))


def centre_logits(network: Network, arrays: Arrays, valid: Split) -> tuple[Arrays, Calibration]:
    """Return the weights with an offset added to the head's bias, and their calibration.

    A temperature cannot correct a shift of all logits, which occurs when the share of tumour differs from that of the
    training patches. The offset is that of Platt's (1999) logistic fit. The ranking of patches does not change.
    """
    logits = _logits(network, arrays, valid)
    offset = np.float32(metrics.logit_offset(valid.labels, logits))
    shifted = {**arrays, "head/bias": arrays["head/bias"] + offset}
    return shifted, fit_calibration(valid.labels, logits + offset)


def _logits(network: Network, arrays: Arrays, valid: Split) -> np.ndarray:
    model = weights.build(backend.keras(), network)
    weights.set_weights(model, arrays, where=network.name)
    return batches.logits_in_batches(model.predict_on_batch, valid)


def _between_logits(logits: ArrayLike, threshold: float) -> float:
    """Return an equivalent threshold halfway to the next lower logit; unchanged if there is none.

    An int8 file has few distinct logits, each shared by many patches. With a threshold equal to one of them, the last
    bit of a runtime's arithmetic would decide the class of all these patches; half a quantum below, it has no effect.
    """
    scores = np.asarray(logits, np.float64)
    lower = scores[scores < threshold]
    return threshold if lower.size == 0 else (threshold + float(lower.max())) / 2
