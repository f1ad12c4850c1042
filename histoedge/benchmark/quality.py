"""How well a file answers the test split, and against its reference: the keys of a measurement, from logits.

Then how well it still answers when the patches are not quite what it was trained on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.edge import manifest as manifests
from histoedge.metrics import by_slide as clustered

PERCENTS = (90, 95, 99)
"""Specificities at which the sensitivity is told, and the reverse."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The AUC on patches after one step of ``perturb.PERTURBATIONS``, with DeLong's 95 % interval.

    ``d_auc`` is what it gains (below 0: loses) against the same file on the patches as they are, with the paired
    interval; ``flips`` counts the decisions that the step changes.
    """

    perturbation: str
    auc: float
    auc_lo: float
    auc_hi: float
    d_auc: float
    d_auc_lo: float
    d_auc_hi: float
    flips: int


def threshold_logit(threshold: float, temperature: float) -> float:
    """The logit whose calibrated probability is ``threshold``; infinite at a threshold of 0 or 1.

    Args:
        threshold: a probability, 0 to 1, as in a manifest.
        temperature: above 0, as in a manifest.
    """
    if threshold in (0, 1):
        return math.copysign(math.inf, threshold - 0.5)
    return temperature * math.log(threshold / (1 - threshold))


def figures(
    labels: np.ndarray, logits: np.ndarray, *, temperature: float | None, slides: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    """What one file's logits are worth: AUC, operating points, calibration.

    Each has 95 % bounds under its name with ``_lo`` and ``_hi``, but ``ece``. That and the Brier score are None where
    ``temperature`` is; ``auc_slides_lo`` and ``auc_slides_hi``, the AUC's bounds over slides, are None where slides are
    unknown or ``slides.enough`` says too few.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.
        temperature: of the calibrated probability; None where no manifest tells it.
        slides: (n,), the slide of each patch, where known.
        seed: of the bootstraps.

    Raises:
        DataError: as ``metrics.auc``, or another number of slide ids than labels.
    """
    found: dict[str, Any] = {"n_patches": len(labels), **_bounded("auc", metrics.delong(labels, logits))}
    for percent in PERCENTS:
        sensitivity = metrics.sensitivity_at_specificity(labels, logits, percent / 100, seed=seed)
        specificity = metrics.specificity_at_sensitivity(labels, logits, percent / 100, seed=seed)
        found |= _bounded(f"sensitivity_at_{percent}_specificity", sensitivity)
        found |= _bounded(f"specificity_at_{percent}_sensitivity", specificity)
    probabilities = None if temperature is None else manifests.probability(logits, temperature)
    found["ece"] = None if probabilities is None else metrics.calibration_error(labels, probabilities)
    found |= _bounded("brier", None if probabilities is None else metrics.brier(labels, probabilities))
    area = None
    if slides is not None and clustered.enough(labels, slides):
        area = clustered.auc(labels, logits, slides, seed=seed)
    return found | _bounds("auc_slides", area)


def difference(
    labels: np.ndarray,
    logits: np.ndarray,
    reference: np.ndarray,
    *,
    threshold_logit: float,
    slides: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """What a file loses or gains against its reference: AUC, paired, and decisions that flip.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, of the file.
        reference: (n,), finite, of its reference on the same patches.
        threshold_logit: the file's decision threshold, as a logit; both files are held to it.
        slides: (n,), the slide of each patch, where known; None and too few as in ``figures``.
        seed: of the bootstrap.

    Raises:
        DataError: as ``metrics.auc``, or another number of slide ids than labels.
    """
    flips = metrics.flips_from(reference, logits, threshold_logit=threshold_logit)
    over_slides = None
    if slides is not None and clustered.enough(labels, slides):
        over_slides = clustered.auc_difference(labels, logits, reference, slides, seed=seed)
    return {
        **_bounded("d_auc", metrics.delong_difference(labels, logits, reference)),
        **_bounds("d_auc_slides", over_slides),
        "flips": flips.count,
        "flips_to_positive": flips.to_positive,
        "flips_to_negative": flips.to_negative,
        "mcnemar_p": flips.p,
    }


def judged(
    labels: np.ndarray, logits: np.ndarray, perturbed: Mapping[str, np.ndarray], *, threshold_logit: float = 0.0
) -> list[Robustness]:
    """A row per perturbation, in order, from logits that are there already.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, of the patches as they are.
        perturbed: by name of the perturbation, the same file's logits (n,) after it.
        threshold_logit: the decision threshold, as a logit.

    Raises:
        DataError: as ``metrics.auc``.
    """
    rows = []
    for name, after in perturbed.items():
        area = metrics.delong(labels, after)
        change = metrics.delong_difference(labels, after, logits)
        rows.append(
            Robustness(
                perturbation=name,
                auc=area.value,
                auc_lo=area.lo,
                auc_hi=area.hi,
                d_auc=change.value,
                d_auc_lo=change.lo,
                d_auc_hi=change.hi,
                flips=metrics.flips(after, logits, threshold_logit=threshold_logit),
            )
        )
    return rows


def _bounded(name: str, found: metrics.Interval | None) -> dict[str, float | None]:
    """An interval as three keys."""
    return {name: None if found is None else found.value, **_bounds(name, found)}


def _bounds(name: str, found: metrics.Interval | None) -> dict[str, float | None]:
    """An interval's ends as two keys."""
    return {f"{name}_lo": None if found is None else found.lo, f"{name}_hi": None if found is None else found.hi}
