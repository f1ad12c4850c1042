"""Quality of a file on the test split: fields of a measurement, computed from logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.edge import manifest as manifests
from histoedge.metrics import Interval, by_slide

PERCENTS = (90, 95, 99)
"""Specificities at which the sensitivity is measured, and sensitivities at which the specificity is."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The AUC after one of ``perturb.PERTURBATIONS``, with DeLong's 95 % interval.

    ``d_auc`` is that minus the AUC of the same file on unchanged patches, with the paired interval; below 0 is a loss.
    ``flips`` counts the decisions that the perturbation changes.
    """

    perturbation: str
    auc: Interval
    d_auc: Interval
    flips: int


def figures(
    labels: np.ndarray, logits: np.ndarray, *, temperature: float | None, slides: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    """Return AUC, operating points and calibration of one file, with 95 % intervals (``ece`` has none).

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.
        temperature: of the calibrated probability; None without a manifest: then ``ece`` and ``brier`` are None.
        slides: (n,), the slide of each patch. ``auc_slides`` is None without them, or if there are too few
            (``by_slide.enough``).
        seed: of the bootstraps.

    Raises:
        DataError: as ``metrics.auc``, or the number of slide ids differs from the number of labels.
    """
    fields: dict[str, Any] = {"n_patches": len(labels), "auc": metrics.delong(labels, logits)}
    for percent in PERCENTS:
        fields[f"sensitivity_at_{percent}_specificity"] = metrics.sensitivity_at_specificity(
            labels, logits, percent / 100, seed=seed
        )
        fields[f"specificity_at_{percent}_sensitivity"] = metrics.specificity_at_sensitivity(
            labels, logits, percent / 100, seed=seed
        )
    probabilities = None if temperature is None else manifests.probability(logits, temperature)
    fields["ece"] = None if probabilities is None else metrics.calibration_error(labels, probabilities)
    fields["brier"] = None if probabilities is None else metrics.brier(labels, probabilities)
    fields["auc_slides"] = None
    if slides is not None and by_slide.enough(labels, slides):
        fields["auc_slides"] = by_slide.auc(labels, logits, slides, seed=seed)
    return fields


def difference(
    labels: np.ndarray,
    logits: np.ndarray,
    reference: np.ndarray,
    *,
    threshold_logit: float,
    slides: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """Return the paired change of AUC against the reference, and the decisions that differ.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, of the file.
        reference: (n,), finite, of its reference on the same patches.
        threshold_logit: the file's decision threshold as a logit, applied to both files.
        slides: (n,), as in ``figures``.
        seed: of the bootstrap.

    Raises:
        DataError: as ``metrics.auc``, or the number of slide ids differs from the number of labels.
    """
    flips = metrics.flips_from(reference, logits, threshold_logit=threshold_logit)
    over_slides = None
    if slides is not None and by_slide.enough(labels, slides):
        over_slides = by_slide.auc_difference(labels, logits, reference, slides, seed=seed)
    return {
        "d_auc": metrics.delong_difference(labels, logits, reference),
        "d_auc_slides": over_slides,
        "flips": flips.count,
        "flips_to_positive": flips.to_positive,
        "flips_to_negative": flips.to_negative,
        "mcnemar_p": flips.p,
    }


def robustness(
    labels: np.ndarray, logits: np.ndarray, perturbed: Mapping[str, np.ndarray], *, threshold_logit: float = 0.0
) -> list[Robustness]:
    """Return a row for each perturbation, in order.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, on unchanged patches.
        perturbed: logits (n,) of the same file after each perturbation, by its name.
        threshold_logit: the decision threshold as a logit.

    Raises:
        DataError: as ``metrics.auc``.
    """
    return [
        Robustness(
            perturbation=name,
            auc=metrics.delong(labels, after),
            d_auc=metrics.delong_difference(labels, after, logits),
            flips=metrics.flips(after, logits, threshold_logit=threshold_logit),
        )
        for name, after in perturbed.items()
    ]
