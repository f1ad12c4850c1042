"""Intervals of an AUC that draw whole slides: patches of one slide share its stain, its scanner and its tissue.

The cluster bootstrap: slides are drawn with replacement and every patch of a drawn slide comes along (Field and Welsh
2007, "Bootstrapping clustered data"; for the ROC curve Rutter 2000, "Bootstrap estimation of diagnostic accuracy with
patient-clustered data"). Percentile intervals (Efron and Tibshirani 1993, chapter 13). Of few slides, twenty and fewer,
these are known to be somewhat too narrow.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histoedge.edge.errors import DataError
from histoedge.metrics import ranking
from histoedge.metrics.interval import BOOTSTRAP_RESAMPLES, Floats, Interval

FEWEST_SLIDES = 2  # with patches of each class: one shows no spread between slides
BLOCK_SLIDES = 1024  # columns of wins in memory at a time


def enough(labels: ArrayLike, slides: Sequence[str]) -> bool:
    """Whether at least ``FEWEST_SLIDES`` slides hold positives and as many hold negatives.

    Args:
        labels: (n,), 0 or 1.
        slides: (n,), the slide of each patch.

    Raises:
        DataError: lengths differ.
    """
    return min(_counts(labels, slides)) >= FEWEST_SLIDES


def auc(labels: ArrayLike, scores: ArrayLike, slides: Sequence[str], *, level: float = 0.95, seed: int = 0) -> Interval:
    """The AUC over all patches, with the interval over slides.

    Draws that miss a class have no AUC and are left out.

    Args:
        labels: (n,), 0 or 1, both present.
        scores: (n,), finite.
        slides: (n,), the slide of each patch.
        level: confidence, between 0 and 1.
        seed: of the resampling.

    Raises:
        DataError: as ``ranking.auc``, lengths differ, or fewer than ``FEWEST_SLIDES`` slides with patches of a class.
    """
    drawn = _drawn(labels, (scores,), slides, seed)[0]
    return _interval(ranking.auc(labels, scores), drawn, level)


def auc_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    slides: Sequence[str],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC of a minus AUC of b on the same patches, with the interval over slides: both see the same draws.

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
    drawn = _drawn(labels, (scores_a, scores_b), slides, seed)
    return _interval(ranking.auc(labels, scores_a) - ranking.auc(labels, scores_b), drawn[0] - drawn[1], level)


def _drawn(labels: ArrayLike, curves: Sequence[ArrayLike], slides: Sequence[str], seed: int) -> Floats:
    """AUCs (curves, resamples) over drawn slides, the same draws for all curves.

    With w how often each slide was drawn, the AUC is w' K w / (positives x negatives), where K[s, t] counts the pairs
    of a positive of slide s and a negative of slide t that the positive wins, ties half. K is made once: a draw costs
    the square of the number of slides, however many patches they have.
    """
    for scores in curves:
        ranking.auc(labels, scores)  # refuses what has no AUC
    with_positives, with_negatives = _counts(labels, slides)
    if min(with_positives, with_negatives) < FEWEST_SLIDES:
        raise DataError(
            f"{with_positives} slides with positives and {with_negatives} with negatives; "
            f"an interval over slides needs at least {FEWEST_SLIDES} of each"
        )
    positive = np.asarray(labels).reshape(-1).astype(bool)
    names, slide = np.unique(np.asarray(slides), return_inverse=True)
    chance = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), chance, BOOTSTRAP_RESAMPLES).astype(np.float64)
    positives, negatives = (times @ np.bincount(slide[one], minlength=len(names)) for one in (positive, ~positive))
    whole = positives * negatives > 0
    wins = np.zeros((len(curves), len(times)))
    for number, scores in enumerate(curves):
        for block, won in _won(positive, np.asarray(scores, np.float64).reshape(-1), slide, len(names)):
            wins[number] += ((times @ won) * times[:, block]).sum(axis=1)
    return np.asarray(wins[:, whole] / (positives * negatives)[whole])


def _won(
    positive: NDArray[np.bool_], scores: Floats, slide: NDArray[np.intp], count: int
) -> Iterator[tuple[slice, Floats]]:
    """Columns of K, (slides, block), block by block: what each slide's positives win against negatives of others."""
    order = np.argsort(scores[positive], kind="stable")
    highs, high_slide = scores[positive][order], slide[positive][order]
    lows, low_slide = scores[~positive], slide[~positive]
    order = np.lexsort((lows, low_slide))
    lows, ends = lows[order], np.searchsorted(low_slide[order], np.arange(count + 1))
    for start in range(0, count, BLOCK_SLIDES):
        block = slice(start, min(start + BLOCK_SLIDES, count))
        won = np.zeros((count, block.stop - start))
        for column in range(block.stop - start):
            theirs = lows[ends[start + column] : ends[start + column + 1]]
            if len(theirs):
                twice = np.searchsorted(theirs, highs, side="left") + np.searchsorted(theirs, highs, side="right")
                won[:, column] = np.bincount(high_slide, weights=twice / 2, minlength=count)
        yield block, won


def _counts(labels: ArrayLike, slides: Sequence[str]) -> tuple[int, int]:
    """How many slides hold positives, and how many hold negatives."""
    positive, names = np.asarray(labels).reshape(-1).astype(bool), np.asarray(slides)
    if len(names) != len(positive):
        raise DataError(f"{len(positive)} labels for {len(names)} slide ids; expected one id for every patch")
    return len(np.unique(names[positive])), len(np.unique(names[~positive]))


def _interval(value: float, drawn: Floats, level: float) -> Interval:
    low, high = np.quantile(drawn, (0.5 - level / 2, 0.5 + level / 2))
    return Interval(value, float(low), float(high))
