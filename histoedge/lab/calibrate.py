"""From logits on ``valid`` to probabilities and decisions: a temperature, and operating points with what they measured.

Decided where the weights are made, so that the checkpoint carries it and an export needs no data. The logits are those
of the deployed file as simulated there; an int8 file may answer a quantum beside them, which moves a few patches in a
thousand across a threshold.
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
from histoedge.edge.manifest import OperatingPoint
from histoedge.lab import backend, batches, weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

SHARES = (0.95, 0.90)
"""The sensitivities and specificities for which there is an operating point."""


@dataclass(frozen=True)
class Calibration:
    """How to read a network's logits, as decided on ``valid``; the threshold of 0.5 needs no choosing."""

    temperature: float
    operating_points: tuple[OperatingPoint, ...]

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


def from_json(document: Mapping[str, Any]) -> Calibration:
    """What ``as_json`` gave.

    Raises:
        KeyError, TypeError, ValueError: it did not give this.
    """
    points = tuple(OperatingPoint(**point) for point in document["operating_points"])
    return Calibration(float(document["temperature"]), points)


def calibrated(labels: ArrayLike, logits: ArrayLike) -> Calibration:
    """The calibration that these patches of ``valid`` ask for.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, as the deployed file answers, rounding included.

    Raises:
        DataError: labels or logits are not so.
    """
    temperature = metrics.temperature(labels, logits)
    chosen = [(f"sensitivity {share:.2f}", metrics.threshold_of_sensitivity(labels, logits, share)) for share in SHARES]
    chosen += [
        (f"specificity {share:.2f}", metrics.threshold_of_specificity(labels, logits, share)) for share in SHARES
    ]
    points = []
    for name, threshold in chosen:
        sensitivity, specificity = (
            measure(labels, logits, threshold) for measure in (metrics.sensitivity, metrics.specificity)
        )
        points.append(
            OperatingPoint(
                name=name,
                threshold=float(special.expit(_with_room(logits, threshold) / temperature)),
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


def of_network(network: Network, arrays: Arrays, valid: Split) -> Calibration:
    """The calibration of a network as trained: weights as of ``network.weights_of``, batch norm included."""
    return calibrated(valid.labels, _logits(network, arrays, valid))


def centred(network: Network, arrays: Arrays, valid: Split) -> tuple[Arrays, Calibration]:
    """The network with the offset that ``valid`` asks for added to the head's bias, and its calibration.

    A temperature sharpens or softens probabilities; it cannot shift them all, as another share of tumour than in the
    training patches asks for. The offset is that of Platt's (1999) logistic fit. No ranking of patches changes.
    """
    logits = _logits(network, arrays, valid)
    offset = np.float32(metrics.logit_offset(valid.labels, logits))
    moved = {**arrays, "head/bias": arrays["head/bias"] + offset}
    return moved, calibrated(valid.labels, logits + offset)


def _logits(network: Network, arrays: Arrays, valid: Split) -> np.ndarray:
    model = weights.build(backend.keras(), network)
    weights.set_weights(model, arrays, where=network.name)
    return batches.logits_in_batches(model.predict_on_batch, valid)


def _with_room(logits: ArrayLike, threshold: float) -> float:
    """A threshold that decides alike, halfway to the next lower logit (as it is where there is none).

    An int8 file gives the same few logits to many patches. At one of them exactly, the last bit of a runtime's
    arithmetic would decide over all of these; half a quantum below it decides nothing.
    """
    scores = np.asarray(logits, np.float64)
    lower = scores[scores < threshold]
    return threshold if lower.size == 0 else (threshold + float(lower.max())) / 2
