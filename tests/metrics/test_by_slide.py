"""Intervals over slides against explicit resampling, simulation, and synthetic slides."""

import numpy as np
import pytest
from scipy import stats

from histoedge import metrics
from histoedge.data import synthetic
from histoedge.edge import drift
from histoedge.edge.errors import DataError
from histoedge.metrics import by_slide


def slide_ids(numbers):
    return [f"slide-{number}" for number in numbers]


def contains(interval, value):
    return interval.lo <= value <= interval.hi


def resampled(labels, scores, slide, times):
    """Return the AUC of patches, each repeated as often as its slide was drawn."""
    patches = np.repeat(np.arange(len(labels)), times[slide])
    return metrics.auc(labels[patches], scores[patches])


@pytest.mark.parametrize("block", [1, 4, 1024])
def test_resampled_slides_equal_repeated_patches(block, monkeypatch):
    monkeypatch.setattr(by_slide, "BLOCK_SLIDES", block)  # the result must not depend on it
    monkeypatch.setattr(by_slide, "BOOTSTRAP_RESAMPLES", 200)
    random = np.random.default_rng(1)
    slide = random.integers(0, 9, 120)
    labels = random.integers(0, 2, 120)
    first, second = np.round(random.normal(labels, 1.0, (2, 120)), 1)  # many ties
    draws = np.random.default_rng(7).multinomial(9, np.full(9, 1 / 9), 200)
    areas = [[resampled(labels, scores, slide, times) for times in draws] for scores in (first, second)]
    auc = by_slide.auc(labels, first, slide_ids(slide), seed=7)
    assert auc.value == metrics.auc(labels, first)
    assert (auc.lo, auc.hi) == pytest.approx(np.quantile(areas[0], (0.025, 0.975)), abs=1e-12)
    difference = by_slide.auc_difference(labels, first, second, slide_ids(slide), seed=7)
    assert difference.value == pytest.approx(metrics.delong_difference(labels, first, second).value, abs=1e-12)
    assert (difference.lo, difference.hi) == pytest.approx(np.quantile(np.subtract(*areas), (0.025, 0.975)), abs=1e-12)


def test_slides_of_one_patch_have_the_interval_over_patches():
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], 250)
    first, second = random.normal(labels, 1.0, (2, 500))
    over_slides = by_slide.auc_difference(labels, first, second, slide_ids(range(500)))
    over_patches = metrics.delong_difference(labels, first, second)
    assert (over_slides.lo, over_slides.hi) == pytest.approx((over_patches.lo, over_patches.hi), abs=0.006)


def test_scores_of_the_same_order_do_not_differ():
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 60), random.normal(0, 1, 60)
    difference = by_slide.auc_difference(labels, scores, np.exp(scores), slide_ids(np.arange(60) // 6))
    assert difference == metrics.Interval(0.0, 0.0, 0.0)


def test_resamples_without_a_class_are_excluded():
    """Two slides of each class: one resample in eight has only one class and no AUC."""
    labels, slide = np.repeat([0, 0, 1, 1], 5), np.repeat(np.arange(4), 5)
    auc = by_slide.auc(labels, np.arange(20) % 7, slide_ids(slide))
    assert 0 < auc.lo < auc.value < auc.hi < 1


def test_only_the_interval_over_slides_contains_the_true_area_if_slides_differ():
    """Each slide has one class and a normal shift of its scores, SD 1: the true AUC is Phi(1 / sqrt(2 + 2))."""
    random = np.random.default_rng(4)
    slide = np.repeat(np.arange(30), 10)
    labels, true = slide % 2, stats.norm.cdf(1 / 2)
    covered = []
    for _ in range(100):
        scores = labels + random.normal(0, 1, 30)[slide] + random.normal(0, 1, 300)
        covered.append(
            (
                contains(by_slide.auc(labels, scores, slide_ids(slide)), true),
                contains(metrics.delong(labels, scores), true),
            )
        )
    over_slides, over_patches = np.mean(covered, axis=0)
    assert 0.85 <= over_slides <= 0.99  # .92 is expected for so few slides; two and a half standard errors are .07
    assert over_patches < 0.75


def test_the_same_on_synthetic_slides():
    """Samples of 20 from 30 slides of one class each, with the depth of the nuclear stain as score."""
    step = synthetic.PATCHES_PER_SLIDE
    patches = [synthetic._patch("test", number * step + patch, 0) for number in range(30) for patch in range(16)]
    labels, slide = np.array([label for _, label in patches]), np.repeat(np.arange(30), 16)
    scores = drift.stains(np.stack([pixels for pixels, _ in patches]))[:, 0]
    one_class = labels == slide % 2
    labels, slide, scores = labels[one_class], slide[one_class], scores[one_class]
    true = metrics.auc(labels, scores)
    random = np.random.default_rng(5)
    covered = []
    for _ in range(100):
        sample = [np.flatnonzero(slide == number) for number in random.integers(0, 30, 20)]
        drawn = np.concatenate(sample)
        ids = slide_ids(np.repeat(np.arange(20), [len(of_slide) for of_slide in sample]))
        intervals = by_slide.auc(labels[drawn], scores[drawn], ids), metrics.delong(labels[drawn], scores[drawn])
        covered.append([contains(interval, true) for interval in intervals])
    over_slides, over_patches = np.mean(covered, axis=0)
    assert over_slides >= 0.83
    assert over_patches < 0.75


@pytest.mark.parametrize(
    ("labels", "ids", "message"),
    [
        ([0, 1, 0, 1], "aaaa", "1 slides with positives and 1 with negatives; an interval over slides requires"),
        ([0, 1, 0, 0], "abab", "1 slides with positives and 2 with negatives"),
        ([0, 1, 0, 1], "abc", "4 labels for 3 slide ids"),
        ([0, 0, 0, 0], "abab", "expected both classes"),
    ],
)
def test_too_few_slides_and_wrong_ids_are_refused(labels, ids, message):
    with pytest.raises(DataError, match=message):
        by_slide.auc(labels, [1, 2, 3, 4], list(ids))
    with pytest.raises(DataError, match=message):
        by_slide.auc_difference(labels, [1, 2, 3, 4], [1, 2, 4, 3], list(ids))
