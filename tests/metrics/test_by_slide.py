"""Intervals over slides against patches resampled the long way, by simulation, and on synthetic slides."""

import numpy as np
import pytest
from scipy import stats

from histoedge import metrics
from histoedge.data import synthetic
from histoedge.edge import drift
from histoedge.edge.errors import DataError
from histoedge.metrics import by_slide


def named(numbers):
    return [f"slide-{number}" for number in numbers]


def holds(found, value):
    return found.lo <= value <= found.hi


def resampled(labels, scores, slide, times):
    """The AUC of patches repeated as often as their slide was drawn."""
    patches = np.repeat(np.arange(len(labels)), times[slide])
    return metrics.auc(labels[patches], scores[patches])


@pytest.mark.parametrize("block", [1, 4, 1024])
def test_drawn_slides_are_patches_repeated(block, monkeypatch):
    monkeypatch.setattr(by_slide, "BLOCK_SLIDES", block)  # what a block holds must not matter
    monkeypatch.setattr(by_slide, "BOOTSTRAP_RESAMPLES", 200)
    random = np.random.default_rng(1)
    slide = random.integers(0, 9, 120)
    labels = random.integers(0, 2, 120)
    first, second = np.round(random.normal(labels, 1.0, (2, 120)), 1)  # many ties
    draws = np.random.default_rng(7).multinomial(9, np.full(9, 1 / 9), 200)
    areas = [[resampled(labels, scores, slide, times) for times in draws] for scores in (first, second)]
    found = by_slide.auc(labels, first, named(slide), seed=7)
    assert found.value == metrics.auc(labels, first)
    assert (found.lo, found.hi) == pytest.approx(np.quantile(areas[0], (0.025, 0.975)), abs=1e-12)
    found = by_slide.auc_difference(labels, first, second, named(slide), seed=7)
    assert found.value == pytest.approx(metrics.delong_difference(labels, first, second).value, abs=1e-12)
    assert (found.lo, found.hi) == pytest.approx(np.quantile(np.subtract(*areas), (0.025, 0.975)), abs=1e-12)


def test_slides_of_one_patch_give_the_interval_over_patches():
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], 250)
    first, second = random.normal(labels, 1.0, (2, 500))
    over_slides = by_slide.auc_difference(labels, first, second, named(range(500)))
    over_patches = metrics.delong_difference(labels, first, second)
    assert (over_slides.lo, over_slides.hi) == pytest.approx((over_patches.lo, over_patches.hi), abs=0.006)


def test_scores_that_rank_alike_do_not_differ_on_any_slides():
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 60), random.normal(0, 1, 60)
    found = by_slide.auc_difference(labels, scores, np.exp(scores), named(np.arange(60) // 6))
    assert found == metrics.Interval(0.0, 0.0, 0.0)


def test_draws_without_a_class_are_left_out():
    """Two slides of each class: one draw in eight has one class, and no number comes of it."""
    labels, slide = np.repeat([0, 0, 1, 1], 5), np.repeat(np.arange(4), 5)
    found = by_slide.auc(labels, np.arange(20) % 7, named(slide))
    assert 0 < found.lo < found.value < found.hi < 1


def test_only_the_interval_over_slides_holds_the_true_area_where_slides_differ():
    """Slides hold one class each and shift their scores by a normal of spread 1: Phi(1 / sqrt(2 + 2))."""
    random = np.random.default_rng(4)
    slide = np.repeat(np.arange(30), 10)
    labels, true = slide % 2, stats.norm.cdf(1 / 2)
    held = []
    for _ in range(100):
        scores = labels + random.normal(0, 1, 30)[slide] + random.normal(0, 1, 300)
        held.append(
            (holds(by_slide.auc(labels, scores, named(slide)), true), holds(metrics.delong(labels, scores), true))
        )
    over_slides, over_patches = np.mean(held, axis=0)
    assert 0.85 <= over_slides <= 0.99  # .92 is known of so few slides; two and a half standard errors are .07
    assert over_patches < 0.75


def test_on_synthetic_slides_too():
    """Draws of 20 from 30 slides that hold one class each, scored by the depth of their nuclear stain alone."""
    every = synthetic.PATCHES_PER_SLIDE
    made = [synthetic._patch("test", number * every + patch, 0) for number in range(30) for patch in range(16)]
    labels, slide = np.array([label for _, label in made]), np.repeat(np.arange(30), 16)
    scores = drift.stains(np.stack([pixels for pixels, _ in made]))[:, 0]
    kept = labels == slide % 2
    labels, slide, scores = labels[kept], slide[kept], scores[kept]
    true = metrics.auc(labels, scores)
    random = np.random.default_rng(5)
    held = []
    for _ in range(100):
        drawn = [np.flatnonzero(slide == number) for number in random.integers(0, 30, 20)]
        patches = np.concatenate(drawn)
        ids = named(np.repeat(np.arange(20), [len(one) for one in drawn]))
        found = by_slide.auc(labels[patches], scores[patches], ids), metrics.delong(labels[patches], scores[patches])
        held.append([holds(one, true) for one in found])
    over_slides, over_patches = np.mean(held, axis=0)
    assert over_slides >= 0.83
    assert over_patches < 0.75


@pytest.mark.parametrize(
    ("labels", "ids", "says"),
    [
        ([0, 1, 0, 1], "aaaa", "1 slides with positives and 1 with negatives; an interval over slides needs"),
        ([0, 1, 0, 0], "abab", "1 slides with positives and 2 with negatives"),
        ([0, 1, 0, 1], "abc", "4 labels for 3 slide ids"),
        ([0, 0, 0, 0], "abab", "expected both classes"),
    ],
)
def test_what_has_no_interval_over_slides_says_why(labels, ids, says):
    with pytest.raises(DataError, match=says):
        by_slide.auc(labels, [1, 2, 3, 4], list(ids))
    with pytest.raises(DataError, match=says):
        by_slide.auc_difference(labels, [1, 2, 3, 4], [1, 2, 4, 3], list(ids))
