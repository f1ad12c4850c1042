"""How well a file answers the test split, and against its reference: the keys of a measurement, from logits.

Then how well it still answers when the patches are not quite what it was trained on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.bench import slides as clustered
from histoedge.data import Split, perturb
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError
from histoedge.progress import Progress, silent

PERCENTS = (90, 95, 99)
"""Specificities at which the sensitivity is told, and the reverse."""
CHUNK_PATCHES = 256  # a step in optical density takes 12 times the bytes of the patches: 85 MB

Predict = Callable[[np.ndarray], np.ndarray]
"""uint8 (n, 96, 96, 3) patches to n logits, of any shape."""


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


def threshold_logit(threshold: float, temperature: float) -> float:
    """The logit whose calibrated probability is ``threshold``; infinite at a threshold of 0 or 1.

    Args:
        threshold: a probability, 0 to 1, as in a manifest.
        temperature: above 0, as in a manifest.
    """
    if threshold in (0, 1):
        return math.copysign(math.inf, threshold - 0.5)
    return temperature * math.log(threshold / (1 - threshold))


def details(
    labels: np.ndarray, logits: np.ndarray, *, temperature: float | None, slides: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    """What ``figures`` leaves out: further operating points, the Brier score, the AUC's interval over slides.

    Each has 95 % bounds under its name with ``_lo`` and ``_hi``. The Brier score is None where ``temperature`` is;
    ``auc_slides_lo`` and ``auc_slides_hi`` are None where slides are unknown or ``slides.enough`` says too few.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite.
        temperature: of the calibrated probability; None where no manifest tells it.
        slides: (n,), the slide of each patch, where known.
        seed: of the bootstraps.

    Raises:
        DataError: as ``metrics.auc``, or another number of slide ids than labels.
    """
    found: dict[str, Any] = {}
    for percent in PERCENTS:
        if percent != 95:  # figures has it
            sensitivity = metrics.sensitivity_at_specificity(labels, logits, percent / 100, seed=seed)
            found |= _bounded(f"sensitivity_at_{percent}_specificity", sensitivity)
    for percent in PERCENTS:
        specificity = metrics.specificity_at_sensitivity(labels, logits, percent / 100, seed=seed)
        found |= _bounded(f"specificity_at_{percent}_sensitivity", specificity)
    brier = None if temperature is None else metrics.brier(labels, manifests.probability(logits, temperature))
    found |= _bounded("brier", brier)
    area = None
    if slides is not None and clustered.enough(labels, slides):
        area = clustered.auc(labels, logits, slides, seed=seed)
    return found | {
        "auc_slides_lo": None if area is None else area.lo,
        "auc_slides_hi": None if area is None else area.hi,
    }


def difference_details(
    labels: np.ndarray,
    logits: np.ndarray,
    reference: np.ndarray,
    *,
    threshold_logit: float,
    slides: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """What ``difference`` leaves out: decision flips against the reference, and the interval over slides.

    Args:
        labels: (n,), 0 or 1, both present.
        logits: (n,), finite, of the file.
        reference: (n,), finite, of its reference on the same patches.
        threshold_logit: the file's decision threshold, as a logit; both files are held to it.
        slides: (n,), the slide of each patch, where known; None and too few as in ``details``.
        seed: of the bootstrap.

    Raises:
        DataError: as ``metrics.auc``, or another number of slide ids than labels.
    """
    flips = metrics.flips_from(reference, logits, threshold_logit=threshold_logit)
    d_auc = None
    if slides is not None and clustered.enough(labels, slides):
        d_auc = clustered.auc_difference(labels, logits, reference, slides, seed=seed)
    return {
        "flips": flips.count,
        "flips_to_positive": flips.to_positive,
        "flips_to_negative": flips.to_negative,
        "mcnemar_p": flips.p,
        "d_auc_slides_lo": None if d_auc is None else d_auc.lo,
        "d_auc_slides_hi": None if d_auc is None else d_auc.hi,
    }


def robustness(
    predict: Predict,
    split: Split,
    *,
    logits: np.ndarray,
    threshold_logit: float = 0.0,
    names: Sequence[str] = tuple(perturb.PERTURBATIONS),
    chunk_patches: int = CHUNK_PATCHES,
    progress: Progress = silent,
) -> list[Robustness]:
    """Perturb the whole split, a chunk in memory at a time, let ``predict`` answer, and judge the answers.

    Args:
        predict: the file on some runtime.
        split: the test patches, both classes.
        logits: (N,), what ``predict`` says of the patches as they are.
        threshold_logit: the decision threshold, as a logit.
        names: which of ``perturb.PERTURBATIONS``.
        chunk_patches: at least 1; the result does not depend on it.
        progress: told of every chunk.

    Raises:
        DataError: no such perturbation, another number of logits than patches, logits that are not finite, or
            ``chunk_patches`` below 1.
    """
    if chunk_patches < 1:
        raise DataError(f"chunks of {chunk_patches} patches; expected at least 1")
    count = len(split.labels)
    answers: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, count, chunk_patches):
        patches = np.asarray(split.patches[start : start + chunk_patches])
        for name in names:
            answer = np.asarray(predict(perturb.perturbed(patches, name))).reshape(-1)
            if len(answer) != len(patches):
                raise DataError(f"{name}: {len(answer)} logits for {len(patches)} patches; expected one for each")
            answers[name].append(answer)
        progress("robustness, test patches", start + len(patches), count)
    every = {name: np.concatenate(parts) for name, parts in answers.items()}
    return judged(split.labels, logits, every, threshold_logit=threshold_logit)


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
    if found is None:
        return dict.fromkeys((name, f"{name}_lo", f"{name}_hi"))
    return {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi}
