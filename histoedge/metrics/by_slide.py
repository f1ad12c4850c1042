"""Intervals of the AUC that resample whole slides, because the patches of a slide share stain, scanner and tissue.

The cluster bootstrap: slides are drawn with replacement, each with all its patches (Field and Welsh 2007,
"Bootstrapping clustered data"; for the ROC curve Rutter 2000, "Bootstrap estimation of diagnostic accuracy with
patient-clustered data"). Percentile intervals (Efron and Tibshirani 1993, chapter 13). With twenty slides or fewer
they are known to be slightly too narrow.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histoedge.edge.errors import DataError
from histoedge.metrics import ranking
from histoedge.metrics.interval import BOOTSTRAP_RESAMPLES, Floats, Interval, percentile_interval

MIN_SLIDES = 2  # with patches of each class; a single slide shows no spread between slides
BLOCK_SLIDES = 1024  # columns of the pair counts in memory at a time


def enough(labels: ArrayLike, slides: Sequence[str]) -> bool:
    """Whether at least ``MIN_SLIDES`` slides contain positives, and at least as many contain negatives.

    Args:
        labels: (n,), 0 or 1.
        slides: (n,), the slide of each patch.

    Raises:
        DataError: lengths differ.
    """
    return min(_counts(labels, slides)) >= MIN_SLIDES


def auc(labels: ArrayLike, scores: ArrayLike, slides: Sequence[str], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the AUC over all patches with the interval over slides.

    Resamples without one of the classes have no AUC and are excluded.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        slides: (n,), the slide of each patch.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: as ``ranking.auc``, lengths differ, or a class is on fewer than ``MIN_SLIDES`` slides.
    """
    resampled = _resampled_areas(labels, (scores,), slides, seed)[0]
    return _interval(ranking.auc(labels, scores), resampled, level)


def auc_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    slides: Sequence[str],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return AUC of a minus AUC of b on the same patches with the interval over slides; both use the same resamples.

    Args:
        labels: (n,), 0 or 1, both present.
        scores_a: (n,), finite.
        scores_b: (n,), finite.
        slides: (n,), the slide of each patch.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: as ``auc``.
    """
    resampled = _resampled_areas(labels, (scores_a, scores_b), slides, seed)
    value = ranking.auc(labels, scores_a) - ranking.auc(labels, scores_b)
    return _interval(value, resampled[0] - resampled[1], level)


def _resampled_areas(labels: ArrayLike, curves: Sequence[ArrayLike], slides: Sequence[str], seed: int) -> Floats:
    """Return AUCs (curves, resamples) of resampled slides, with the same resamples for all curves.

    Let w be the number of times each slide was drawn. The AUC is w' K w / (positives x negatives). K[s, t] counts the
    pairs of a positive on slide s and a negative on slide t where the positive scores higher, ties as half. K is
    computed once. The cost of a resample is the square of the number of slides; the number of patches does not matter.
    """
    for scores in curves:
        ranking.auc(labels, scores)  # raises DataError for invalid labels or scores
    with_positives, with_negatives = _counts(labels, slides)
    if min(with_positives, with_negatives) < MIN_SLIDES:
        raise DataError(
            f"{with_positives} slides with positives and {with_negatives} with negatives; "
            f"an interval over slides requires at least {MIN_SLIDES} of each"
        )
    positive = np.asarray(labels).reshape(-1).astype(bool)
    names, slide = np.unique(np.asarray(slides), return_inverse=True)
    chance = np.full(len(names), 1 / len(names))
    weights = np.random.default_rng(seed).multinomial(len(names), chance, BOOTSTRAP_RESAMPLES).astype(np.float64)
    positives, negatives = (weights @ np.bincount(slide[of], minlength=len(names)) for of in (positive, ~positive))
    both_classes = positives * negatives > 0
    wins = np.zeros((len(curves), len(weights)))
    for number, scores in enumerate(curves):
        for block, counts in _pair_counts(positive, np.asarray(scores, np.float64).reshape(-1), slide, len(names)):
            wins[number] += ((weights @ counts) * weights[:, block]).sum(axis=1)
    return np.asarray(wins[:, both_classes] / (positives * negatives)[both_classes])


def _pair_counts(
    positive: NDArray[np.bool_], scores: Floats, slide: NDArray[np.intp], count: int
) -> Iterator[tuple[slice, Floats]]:
    """Yield the columns of K in blocks (slides, block)."""
    order = np.argsort(scores[positive], kind="stable")
    highs, high_slide = scores[positive][order], slide[positive][order]
    lows, low_slide = scores[~positive], slide[~positive]
    order = np.lexsort((lows, low_slide))
    lows, ends = lows[order], np.searchsorted(low_slide[order], np.arange(count + 1))
    for start in range(0, count, BLOCK_SLIDES):
        block = slice(start, min(start + BLOCK_SLIDES, count))
        counts = np.zeros((count, block.stop - start))
        for column in range(block.stop - start):
            of_slide = lows[ends[start + column] : ends[start + column + 1]]
            if len(of_slide):
                twice = np.searchsorted(of_slide, highs, side="left") + np.searchsorted(of_slide, highs, side="right")
                counts[:, column] = np.bincount(high_slide, weights=twice / 2, minlength=count)
        yield block, counts


def _counts(labels: ArrayLike, slides: Sequence[str]) -> tuple[int, int]:
    """Return the number of slides with positives, and of slides with negatives."""
    positive, names = np.asarray(labels).reshape(-1).astype(bool), np.asarray(slides)
    if len(names) != len(positive):
        raise DataError(f"{len(positive)} labels for {len(names)} slide ids; expected one id per patch")
    return len(np.unique(names[positive])), len(np.unique(names[~positive]))


def _interval(value: float, resampled: Floats, level: float) -> Interval:
    return Interval(value, *percentile_interval(resampled, level))
