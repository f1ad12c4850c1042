"""How well a file answers the test split, and against its reference: the keys of a measurement, from logits."""

from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.edge import manifest as manifests


def figures(labels: np.ndarray, logits: np.ndarray, *, temperature: float | None, seed: int) -> dict[str, Any]:
    """What one file's logits are worth.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.
        temperature: of the calibrated probability; None where no manifest tells it.
        seed: of the bootstrap.
    """
    area = metrics.delong(labels, logits)
    found = metrics.sensitivity_at_specificity(labels, logits, 0.95, seed=seed)
    ece = None
    if temperature is not None:
        ece = metrics.calibration_error(labels, manifests.probability(logits, temperature))
    return {
        "n_patches": len(labels),
        "auc": area.value,
        "auc_lo": area.lo,
        "auc_hi": area.hi,
        "ece": ece,
        "sensitivity_at_95_specificity": found.value,
        "sensitivity_at_95_specificity_lo": found.lo,
        "sensitivity_at_95_specificity_hi": found.hi,
    }


def difference(labels: np.ndarray, logits: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """What the file's logits (n,) lose or gain against its reference's on the same patches."""
    d_auc = metrics.delong_difference(labels, logits, reference)
    return {"d_auc": d_auc.value, "d_auc_lo": d_auc.lo, "d_auc_hi": d_auc.hi}
